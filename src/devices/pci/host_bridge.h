// A PCI host bridge with bus 0: how a guest reaches configuration space.
//
// Documents: PCI Local Bus Specification 3.0, 3.2.2.3.2 (configuration mechanism #1); PCI Express
// Base Specification 3.1, 7.2.2 (memory-mapped access); PIIX3 (290550), 2.5.7 for the reset
// control register.
//
//   port 0xcf8, 32 bits   CONFIG_ADDRESS: enable, bus, device, function, register
//   ports 0xcfc..0xcff    CONFIG_DATA: the bytes of that register
//   port 0xcf9, 8 bits    the reset control register, which lies under CONFIG_ADDRESS
//   a window of 1 MiB     all 256 functions of bus 0, 4 KiB each
//
// The bridge itself is function 00:00.0. What is not there reads all ones, and so does every other
// bus. Functions may come and go.
//
// Threats: any address can be asked for; a lookup is one index.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/result.h"
#include "devices/device.h"
#include "devices/machine_events.h"
#include "devices/pci/config_space.h"
#include "devices/reset_control.h"
#include "devices/state_id.h"

namespace vmm::pci {

// A function's configuration space as the bus reaches it. Called with the host bridge's lock held:
// an implementation that takes a lock of its own never calls the bridge with it held.
class Function {
 public:
  virtual ~Function() = default;
  // `data` has 1, 2 or 4 bytes within one aligned group of four; `offset` is below 4096.
  virtual void read_config(std::uint64_t offset, std::span<std::byte> data) = 0;
  virtual void write_config(std::uint64_t offset, std::span<const std::byte> data) = 0;
};

// Device and function on bus 0.
struct Slot {
  std::uint8_t device = 0;    // 0 to 31
  std::uint8_t function = 0;  // 0 to 7
};

class HostBridge final : public Device {
 public:
  static constexpr std::uint16_t kPort = 0xcf8;
  static constexpr std::uint64_t kPortSize = 8;  // widths 1, 2 and 4
  static constexpr std::uint64_t kMemorySize =
      0x10'0000;  // of the memory-mapped window; widths 1, 2, 4
  // Offsets of the windows.
  static constexpr std::uint64_t kAddress = 0;
  static constexpr std::uint64_t kReset = ResetControl::kPort - kPort;
  static constexpr std::uint64_t kData = 4;
  static constexpr std::uint64_t kMemory = 0x10'0000;
  static constexpr std::size_t kFunctions = 256;
  // A virtual host bridge without a chip's registers: what QEMU calls pcie-host.
  static constexpr std::uint16_t kVendor = 0x1b36;
  static constexpr std::uint16_t kDevice = 0x0008;

  struct State {
    static constexpr StateId kId{"pci_host_bridge", 1};
    std::uint32_t address = 0;
    ConfigSpace::Bytes config{};  // of the bridge itself
    ResetControl::State reset_control;
    bool operator==(const State&) const = default;
    static void fields(auto&& f) {
      f("address", &State::address);
      f("config", &State::config);
      f("reset_control", &State::reset_control);
    }
  };

  // `events` is borrowed and outlives the device; nullptr drops resets.
  HostBridge(std::string id, MachineEvents* events);

  // Puts a function on the bus; borrowed, outlives the bridge or is detached. Errors: kBadConfig
  // when the slot is taken or does not exist.
  Result<void> attach(Slot slot, Function& function);
  // Takes it off again: from now on the slot reads all ones.
  void detach(Slot slot);

  State state() const;

  std::string_view id() const noexcept override { return id_; }
  void read(const IoAccess& access, std::span<std::byte> data) override;
  void write(const IoAccess& access, std::span<const std::byte> data) override;
  void reset() override;
  void save(StateWriter& writer) const override;
  Result<void> restore(const StateReader& reader) override;

 private:
  class Self final : public Function {
   public:
    Self();
    void read_config(std::uint64_t offset, std::span<std::byte> data) override;
    void write_config(std::uint64_t offset, std::span<const std::byte> data) override;
    ConfigSpace space;
  };
  // Where an access leads: a function and a register, or nowhere.
  struct Target {
    Function* function = nullptr;
    std::uint64_t offset = 0;
  };
  Target target(const IoAccess& access, std::size_t width) const;
  bool is_reset_control(const IoAccess& access, std::size_t width) const;

  std::uint32_t address_ = 0;
  Self self_;
  ResetControl reset_control_;
  std::array<Function*, kFunctions> functions_{};
  std::string id_;
};

}  // namespace vmm::pci
