// All that a snapshot has besides memory: typed, and as a document.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "devices/state_id.h"
#include "devices/state_value.h"
#include "memory/address.h"
#include "vmm/kvm/chip_state.h"
#include "vmm/kvm/vcpu_state.h"
#include "vmm/snapshot/machine_shape.h"
#include "vmm/stop_reason.h"

namespace vmm {

// A reason to stop that nobody had been told of.
struct SavedStop {
  StopReason reason = StopReason::kCancelled;
  std::uint32_t vcpu = 0;
  std::uint32_t value = 0;
  std::string detail, report;
  bool operator==(const SavedStop&) const = default;
  Result<void> validate() const;
  static void fields(auto&& f) {
    f("reason", &SavedStop::reason);
    f("vcpu", &SavedStop::vcpu);
    f("value", &SavedStop::value);
    f("detail", &SavedStop::detail);
    f("report", &SavedStop::report);
  }
};

// A file of fw_cfg, as the guest finds it: the ACPI tables are among them.
struct SavedFile {
  std::string name;
  Blob content;
  bool operator==(const SavedFile&) const = default;
  static void fields(auto&& f) {
    f("name", &SavedFile::name);
    f("content", &SavedFile::content);
  }
};

struct MachineState {
  static constexpr StateId kId{"machine", 1};
  MachineShape shape;
  std::vector<kvm::VcpuState> cpus;
  std::optional<kvm::ChipState> chips = {};         // with the irqchip in KVM
  std::optional<std::uint8_t> held_interrupt = {};  // with the irqchip split
  std::optional<std::uint64_t> kvm_clock = {};      // nanoseconds of kvmclock
  std::uint32_t tsc_khz = 0;
  std::int64_t guest_time = 0;  // nanoseconds of the devices' clock
  std::int64_t utc = 0;         // nanoseconds of the time of day (GuestClock::utc())
  bool panicked = false;
  std::optional<SavedStop> stop = {};
  std::vector<SavedFile> files = {};

  bool operator==(const MachineState&) const = default;
  Result<void> validate() const;
  static void fields(auto&& f) {
    f("shape", &MachineState::shape);
    f("cpus", &MachineState::cpus);
    f("chips", &MachineState::chips);
    f("held_interrupt", &MachineState::held_interrupt);
    f("kvm_clock", &MachineState::kvm_clock);
    f("tsc_khz", &MachineState::tsc_khz);
    f("guest_time", &MachineState::guest_time);
    f("utc", &MachineState::utc);
    f("panicked", &MachineState::panicked);
    f("stop", &MachineState::stop);
    f("files", &MachineState::files);
  }
};

// With the devices' states, each by its id (StateWriter's documents).
struct WholeState {
  MachineState machine;
  std::map<std::string, StateDocument> devices;
};

nlohmann::json to_document(const WholeState& state);
// The document is untrusted. Errors: kBadState naming what is wrong.
Result<WholeState> from_document(const StateDocument& document);

}  // namespace vmm
