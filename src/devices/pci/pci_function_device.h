// A PCI function made of functions: for programs that embed a machine and want one of their own
// (EmbedderDevice::pci, docs/library.md).
//
// It has a header, BARs in memory with a pair of functions for each, MSI-X or a wired interrupt,
// and capabilities of the program's. What is missing there, Endpoint has not either (endpoint.h). A
// function with many registers derives from Device and owns an Endpoint.
//
// Threats: BARs and interrupts are Endpoint's business. Offset, width and value of an access are
// the guest's choice.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "devices/blob.h"
#include "devices/bus.h"
#include "devices/device.h"
#include "devices/function_state.h"
#include "devices/pci/config_space.h"
#include "devices/pci/endpoint.h"
#include "devices/state_id.h"

namespace vmm {

class PciFunctionDevice final : public Device, public StateInFunctions {
 public:
  // The functions are called as FunctionDevice's are, with the function that they belong to.
  struct Bar {
    std::size_t index = 0;                             // 0 to 5; a 64-bit one takes the next, too
    std::uint64_t size = pci::Endpoint::kSmallestBar;  // bytes: a power of two, up to kLargestBar
    pci::BarKind kind = pci::BarKind::kMemory32;
    Widths widths = Widths::any();
    // `access.offset` counts from the BAR's start. Without it reads are all ones.
    std::function<std::uint64_t(PciFunctionDevice& self, const IoAccess& access, std::size_t width)>
        read = {};
    std::function<void(PciFunctionDevice& self, const IoAccess& access, std::size_t width,
                       std::uint64_t value)>
        write = {};
  };
  // A capability with these bytes behind its ID and link. `writable` has the mask of the bits that
  // the guest may change, of the first bytes.
  struct Capability {
    std::uint8_t id = 0x09;  // vendor-specific
    std::vector<std::uint8_t> bytes = {};
    std::vector<std::uint8_t> writable = {};
  };
  struct Options {
    pci::Identity identity = {};
    std::vector<Bar> bars = {};
    std::size_t vectors = 0;  // of MSI-X, 0 to 2048: with any, the first BAR that is free is theirs
    bool intx = false;        // INTA#, which is in use while MSI-X is off
    std::vector<Capability> capabilities = {};  // behind MSI-X; there is room for 192 bytes in all
    std::function<void()> reset = {};           // power-on
    FunctionState state = {};  // besides configuration space, MSI-X and the wire's level
  };
  struct State {
    static constexpr StateId kId{"pci_function_device", 1};
    pci::Endpoint::State endpoint;
    bool intx = false;
    Blob bytes;
    bool operator==(const State&) const = default;
    static void fields(auto&& f) {
      f("endpoint", &State::endpoint);
      f("intx", &State::intx);
      f("bytes", &State::bytes);
    }
  };
  static constexpr std::uint64_t kLargestBar = std::uint64_t{1} << 28;

  // `ports` is DeviceHost::pci, `id` unique in a machine. Errors: kBadConfig, what cannot be.
  static Result<std::unique_ptr<PciFunctionDevice>> create(std::string id, Options options,
                                                           const pci::Endpoint::Ports& ports);

  // --- With the device's lock held: in its functions, or in DeviceRef::with().
  // A message, if the guest has MSI-X on; pending while it masks the vector.
  void interrupt(std::size_t vector) { endpoint_.interrupt(vector); }
  // The wire, which the guest sees while MSI-X is off.
  void set_intx(bool level);
  bool msix_enabled() const noexcept { return endpoint_.msix_enabled(); }
  // Whether the guest lets the function reach memory (the command register's bus master bit).
  bool bus_master() const noexcept { return (endpoint_.command() & pci::kBusMaster) != 0; }

  std::string_view id() const noexcept override { return id_; }
  void read(const IoAccess& access, std::span<std::byte> data) override;
  void write(const IoAccess& access, std::span<const std::byte> data) override;
  void reset() override;
  void save(StateWriter& writer) const override;
  Result<void> restore(const StateReader& reader) override;
  bool savable() const noexcept override { return options_.state.complete(); }

 private:
  PciFunctionDevice(std::string id, Options options, const pci::Endpoint::Ports& ports);
  // Which BAR is hit, and where in it; nullptr for none of the program's.
  const Bar* bar_at(const IoAccess& access, IoAccess& inside) const noexcept;

  const std::string id_;
  const Options options_;
  pci::Endpoint endpoint_;
  bool intx_ = false;
};

}  // namespace vmm
