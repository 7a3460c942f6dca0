// What the command does for those who look for a guest's trouble: core files, exits.
#include <fmt/format.h>

#include "cli/report_text.h"
#include "cli/run_session.h"
#include "vmm/debug/debugger.h"
#include "vmm/debug/symbols.h"

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
  const auto debugger = gdb_ ? gdb_->debugger() : nullptr;
  if (!debugger || debugger->symbols() == nullptr) return exits;
  const std::uint64_t offset = kernel_offset();
  for (const ExitRecord& record : exits.records) {
    exits.symbols.push_back(record.rip == 0 ? std::string()
                                            : debugger->symbols()->name_of(record.rip - offset));
  }
  return exits;
}

std::uint64_t RunSession::kernel_offset() {
  std::uint64_t resets = 0;
  {
    const std::lock_guard guard(mutex_);
    resets = resets_;
  }
  if (offset_of_reset_ != resets) kernel_offset_.reset();
  offset_of_reset_ = resets;
  if (!kernel_offset_) kernel_offset_ = gdb_->debugger()->kernel_offset();
  return kernel_offset_.value_or(0);
}

Result<std::vector<ControlStack>> RunSession::control_sample() {
  std::vector<StackSample> samples;
  {
    const std::lock_guard guard(mutex_);
    const Vm* const vm = VMM_TRY(machine());
    samples = VMM_TRY(vm->sample_stacks());
  }
  const auto debugger = gdb_ ? gdb_->debugger() : nullptr;
  const debug::Symbols* const symbols = debugger ? debugger->symbols() : nullptr;
  const std::uint64_t offset = symbols != nullptr ? kernel_offset() : 0;
  std::vector<ControlStack> stacks;
  for (const StackSample& sample : samples) {
    ControlStack stack{.cpu = static_cast<std::uint32_t>(sample.vcpu), .user = sample.user};
    for (const std::uint64_t address : sample.frames) {
      std::string name = symbols != nullptr ? symbols->name_of(address - offset) : std::string();
      // Functions, not places in them, are what a profile is of.
      name = name.substr(0, name.find('+'));
      stack.frames.push_back(name.empty() ? fmt::format("{:#x}", address) : std::move(name));
    }
    stacks.push_back(std::move(stack));
  }
  return stacks;
}

}  // namespace vmm::cli
