// Firmware configuration device (QEMU, docs/specs/fw_cfg.rst): numbered items of bytes that the
// host gives to the guest.
//
//   port 0x510, 16-bit write   selects an item and goes to its start
//   port 0x511 (or 0x510), 8-bit read   the item's next byte; zeroes past its end
//   ports 0x514..0x51b, big-endian      address of a DMA request; the low half starts it; reads
//                                       give "QEMU CFG"
//
// Emulated: the selector, byte reads, DMA (select, skip, read; writing is refused, all items are
// read-only), the file directory. Not emulated: the architecture-local and the write bit of the
// selector.
//
// Threats: a request's length is the guest's: what is past an item's end is skipped without work,
// and zeroes for it are written for kMostPadding bytes at most, else the request fails. Guest
// memory is copied once and judged then.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "devices/device.h"
#include "devices/state_id.h"
#include "memory/guest_memory.h"

namespace vmm {

class FwCfg final : public Device {
 public:
  static constexpr std::uint16_t kSelectorPort = 0x510;
  static constexpr std::uint64_t kSelectorSize = 2;  // widths 1 and 2
  static constexpr std::uint16_t kDmaPort = 0x514;
  static constexpr std::uint64_t kDmaSize = 8;  // widths 1 to 8
  // Offsets of the windows.
  static constexpr std::uint64_t kSelector = 0;
  static constexpr std::uint64_t kData = 1;
  static constexpr std::uint64_t kDma = 4;

  // Items with fixed numbers.
  static constexpr std::uint16_t kSignature = 0x00;
  static constexpr std::uint16_t kFeatures = 0x01;
  static constexpr std::uint16_t kUuid = 0x02;
  static constexpr std::uint16_t kRamSize = 0x03;
  static constexpr std::uint16_t kGraphics = 0x04;  // 1: there is none
  static constexpr std::uint16_t kCpus = 0x05;
  static constexpr std::uint16_t kMostCpus = 0x0f;
  static constexpr std::uint16_t kDirectory = 0x19;
  static constexpr std::uint16_t kFirstFile = 0x20;
  static constexpr std::size_t kMostFiles = 256;
  static constexpr std::size_t kMostName = 55;
  static constexpr std::uint64_t kMostPadding = 64 * 1024;

  struct State {
    static constexpr StateId kId{"fw_cfg", 1};
    std::uint16_t item = 0;
    std::uint32_t offset = 0;       // of the item's next byte
    std::uint32_t dma_address = 0;  // the high half, until the low one comes
    bool operator==(const State&) const = default;
    static void fields(auto&& f) {
      f("item", &State::item);
      f("offset", &State::offset);
      f("dma_address", &State::dma_address);
    }
  };

  // `memory` is borrowed and outlives the device; nullptr: there is no DMA.
  FwCfg(std::string id, const GuestMemory* memory);

  // What the guest can read; all of it before it runs. A file's name is at most kMostName
  // characters from '!' to '~'. Errors of add_file: kBadConfig, saying what is wrong with the name
  // or the number of files.
  void set_item(std::uint16_t item, std::vector<std::byte> bytes);
  Result<void> add_file(std::string_view name, std::vector<std::byte> bytes);

  const State& state() const noexcept { return s_; }
  // Constant while the guest runs.
  const std::map<std::string, std::vector<std::byte>, std::less<>>& files() const noexcept {
    return files_;
  }

  std::string_view id() const noexcept override { return id_; }
  void read(const IoAccess& access, std::span<std::byte> data) override;
  void write(const IoAccess& access, std::span<const std::byte> data) override;
  void reset() override;
  void save(StateWriter& writer) const override;
  Result<void> restore(const StateReader& reader) override;

 private:
  std::span<const std::byte> item() const;
  std::span<const std::byte> rest() const;  // of the item, from the offset on
  void select(std::uint16_t item);
  void advance(std::uint64_t bytes);
  void write_dma(std::uint64_t offset, std::span<const std::byte> data);
  void run_dma(Gpa request);
  bool transfer(std::uint32_t control, std::uint32_t length, Gpa to);
  void build_directory();

  State s_;
  const GuestMemory* memory_;
  std::string id_;
  std::map<std::uint16_t, std::vector<std::byte>> items_;
  std::map<std::string, std::vector<std::byte>, std::less<>> files_;
};

}  // namespace vmm
