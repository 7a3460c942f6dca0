// What the command does for those who look for a guest's trouble: core files, exits.
#include <fmt/format.h>

#include "cli/run_session.h"

namespace vmm::cli {

void RunSession::write_crash_core(Vm& vm) {
  const std::string& file = *request_.on_crash.core;
  const Result<void> written = vm.write_core(file, [this] { return quit_.load(); });
  note(written ? fmt::format("the guest is in the core file {}", file) : written.error().message());
}

Result<ControlExits> RunSession::control_exits(std::uint32_t cpu, std::size_t most) {
  ControlExits exits;
  {
    const std::lock_guard guard(mutex_);
    const Vm* const vm = VMM_TRY(machine());
    auto all = vm->last_exits(most);
    if (cpu >= all.size()) {
      return fail(ErrorCode::kOutOfRange, "There is no vCPU {}: this machine has {}", cpu,
                  all.size());
    }
    exits.cpus = static_cast<std::uint32_t>(all.size());
    exits.records = std::move(all[cpu]);
  }
  std::vector<std::uint64_t> addresses;
  for (const ExitRecord& record : exits.records) addresses.push_back(record.rip);
  if (gdb_) exits.symbols = gdb_->names_of(addresses);
  return exits;
}

Result<ControlEvents> RunSession::control_events(std::size_t most) {
  ControlEvents events;
  {
    const std::lock_guard guard(mutex_);
    const Vm* const vm = VMM_TRY(machine());
    events.records = vm->last_events(most);
  }
  if (!gdb_) return events;
  std::vector<std::uint64_t> addresses;
  for (const DeviceEvent& record : events.records) addresses.push_back(record.rip());
  events.symbols = gdb_->names_of(addresses);
  return events;
}

Result<std::vector<ControlStack>> RunSession::control_sample() {
  std::vector<StackSample> samples;
  {
    const std::lock_guard guard(mutex_);
    const Vm* const vm = VMM_TRY(machine());
    samples = VMM_TRY(vm->sample_stacks());
  }
  std::vector<ControlStack> stacks;
  for (const StackSample& sample : samples) {
    ControlStack stack{.cpu = static_cast<std::uint32_t>(sample.vcpu), .user = sample.user};
    const auto names = gdb_ ? gdb_->names_of(sample.frames) : std::vector<std::string>();
    for (std::size_t i = 0; i < sample.frames.size(); ++i) {
      // Functions, not places in them, are what a profile is of.
      std::string name = i < names.size() ? names[i].substr(0, names[i].find('+')) : std::string();
      stack.frames.push_back(name.empty() ? fmt::format("{:#x}", sample.frames[i])
                                          : std::move(name));
    }
    stacks.push_back(std::move(stack));
  }
  return stacks;
}

}  // namespace vmm::cli
