// Runs a machine until a condition is met (Vm::run_until(), Vm::step()).
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <vector>

#include "base/result.h"
#include "devices/device.h"
#include "vmm/exit_dispatch.h"
#include "vmm/machine.h"
#include "vmm/run_until.h"
#include "vmm/stop_reason.h"

namespace vmm {

struct RunOptions;
namespace debug {
class Debugger;
}

// What the loop needs of the machine, which nobody else runs meanwhile. All borrowed.
struct UntilHost {
  Machine& machine;
  const std::vector<std::unique_ptr<ExitDispatch>>& dispatches;
  std::function<Result<StopInfo>(const RunOptions&)> run;
  // Errors: kBadState, there is another one.
  std::function<Result<void>(std::shared_ptr<debug::Debugger>)> attach;
  std::function<void()> detach;
  std::atomic<bool>& between;  // whether the caller may look at the guest
};

Result<UntilResult> run_until(const UntilHost& host, const std::vector<Condition>& conditions,
                              std::chrono::nanoseconds deadline);
Result<StopInfo> step(const UntilHost& host, VcpuId vcpu, std::chrono::nanoseconds deadline);

}  // namespace vmm
