// A PCI function for tests: registers that raise its interrupts.
//
//   BAR 0, 4 KiB:  0 a register   4 written: that MSI-X vector is due   8 bit 0: the wired
//   interrupt BAR 1: MSI-X, 3 vectors       BAR 4, 64 bits, 64 KiB: the register again
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "base/le.h"
#include "devices/device.h"
#include "devices/pci/endpoint.h"
#include "devices/state_io.h"

namespace vmm::test {

class PciTestFunction final : public Device {
 public:
  static constexpr std::uint16_t kVendor = 0x1234, kDevice = 0x5678;
  static constexpr std::size_t kVectors = 3;
  static constexpr std::uint64_t kRegister = 0, kTrigger = 4, kWire = 8;
  static constexpr std::uint64_t kMsixBar = pci::Endpoint::bar_offset(1);
  static constexpr std::uint64_t kWideBar = pci::Endpoint::bar_offset(4);
  static constexpr std::uint64_t kMsixPending = kMsixBar + 2048;
  static constexpr std::uint8_t kMsixCapability = 0x40;

  struct State {
    static constexpr StateId kId{"pci_test_function", 1};
    pci::Endpoint::State endpoint;
    std::uint32_t value = 0;
    bool wire = false;
    bool operator==(const State&) const = default;
    static void fields(auto&& f) {
      f("endpoint", &State::endpoint);
      f("value", &State::value);
      f("wire", &State::wire);
    }
  };

  PciTestFunction(std::string id, pci::Endpoint::Ports ports)
      : endpoint_({.vendor = kVendor, .device = kDevice, .class_code = 0xff'0000}, ports),
        id_(std::move(id)) {
    endpoint_.add_bar(0, pci::BarKind::kMemory32, 4096);
    endpoint_.add_msix(1, kVectors);
    endpoint_.add_bar(4, pci::BarKind::kMemory64, 0x1'0000);
    endpoint_.add_intx();
    endpoint_.power_on();
  }

  const pci::Endpoint& endpoint() const { return endpoint_; }
  std::string_view id() const noexcept override { return id_; }

  void read(const IoAccess& access, std::span<std::byte> data) override {
    if (endpoint_.read(access, data)) return;
    const std::uint64_t offset = access.offset % pci::Endpoint::bar_offset(1);
    store_le(data, offset == kRegister ? value_ : offset == kWire ? std::uint32_t{wire_} : 0);
  }

  void write(const IoAccess& access, std::span<const std::byte> data) override {
    if (endpoint_.write(access, data)) return;
    const std::uint64_t offset = access.offset % pci::Endpoint::bar_offset(1);
    const std::uint64_t value = load_le(data);
    if (offset == kRegister) value_ = static_cast<std::uint32_t>(value);
    if (offset == kTrigger) endpoint_.interrupt(static_cast<std::size_t>(value));
    if (offset == kWire) wire_ = (value & 1) != 0;
    endpoint_.set_intx(wire_);
  }

  void reset() override {
    value_ = 0;
    wire_ = false;
    endpoint_.reset();
  }

  void save(StateWriter& writer) const override {
    writer.put(State{endpoint_.state(), value_, wire_});
  }

  Result<void> restore(const StateReader& reader) override {
    const State state = VMM_TRY(reader.get<State>());
    VMM_TRY(endpoint_.check(state.endpoint));
    value_ = state.value;
    wire_ = state.wire;
    endpoint_.set_state(state.endpoint);
    endpoint_.set_intx(wire_);
    return {};
  }

 private:
  pci::Endpoint endpoint_;
  std::uint32_t value_ = 0;
  bool wire_ = false;
  std::string id_;
};

}  // namespace vmm::test
