// A device for test kernels, compatible with QEMU's pc-testdev (hw/misc/pc-testdev.c; there is no
// other specification).
//
//   ports 0xe0..0xe3      a latch of 32 bits: what is written is read, in bytes, words or whole
//   port 0xe4             the address of a page that the host is to map anew
//   ports 0xe8..0xeb      the same latch, in which 0xe9 may be Bochs's debug console (below)
//   ports 0x2000..0x2017  a write sets interrupt line n of the first I/O APIC: 0 clears, other
//                         values assert; reads are all ones
//   MMIO 0xff000000, 64 KiB   memory that is a device
//
// With a console, single bytes at 0xe9 are its: it takes what is written, and reads are 0xe9, by
// which a guest knows that it is there (debug_console.h). Test kernels use the whole latch there,
// not its second byte; wider accesses are the latch's, as are all without a console.
//
// Threats: none beyond its own state; a page is mapped anew by whoever is injected for it, at most
// once an access.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "devices/device.h"
#include "devices/irq.h"
#include "devices/sink.h"
#include "devices/state_id.h"
#include "memory/address.h"

namespace vmm {

class TestDevice final : public Device {
 public:
  static constexpr std::uint16_t kLatchPort = 0xe0;
  static constexpr std::uint16_t kFlushPort = 0xe4;
  static constexpr std::uint16_t kSecondLatchPort = 0xe8;
  static constexpr std::uint64_t kLatchSize = 4;
  static constexpr std::uint16_t kLinePort = 0x2000;
  static constexpr std::size_t kLines = 24;
  static constexpr Gpa kMemory{0xff00'0000};
  static constexpr std::uint64_t kMemorySize = 0x1'0000;

  // Offsets of the windows.
  static constexpr std::uint64_t kLatch = 0;
  static constexpr std::uint64_t kFlush = 4;
  static constexpr std::uint64_t kSecondLatch = 8;
  static constexpr std::uint64_t kLineBase = 0x100;
  static constexpr std::uint64_t kMemoryBase = 0x1'0000;

  struct State {
    static constexpr StateId kId{"test_device", 1};
    std::uint32_t latch = 0;
    std::uint32_t lines = 0;           // one bit a line
    std::vector<std::uint8_t> memory;  // from its start; what is not there is zero
    bool operator==(const State&) const = default;
    Result<void> validate() const;
    static void fields(auto&& f) {
      f("latch", &State::latch);
      f("lines", &State::lines);
      f("memory", &State::memory);
    }
  };
  struct Ports {
    std::array<IrqLine, kLines> lines = {};
    std::function<void(Gpa)> remap_page = {};  // may be empty
    ByteSink* console = nullptr;               // at 0xe9; borrowed; nullptr: there is none
  };

  TestDevice(std::string id, Ports ports);

  const State& state() const noexcept { return s_; }

  std::string_view id() const noexcept override { return id_; }
  void read(const IoAccess& access, std::span<std::byte> data) override;
  void write(const IoAccess& access, std::span<const std::byte> data) override;
  void reset() override;
  void save(StateWriter& writer) const override;
  Result<void> restore(const StateReader& reader) override;

 private:
  bool is_console(std::uint64_t offset, std::size_t width) const;
  void settle();

  State s_;
  Ports ports_;
  std::string id_;
};

}  // namespace vmm
