// How the state of a machine's CPUs is reached: on their own threads, one after the other.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>

#include "base/result.h"
#include "vmm/exit_dispatch.h"
#include "vmm/vcpu.h"

namespace vmm {

// Borrows all; the CPUs are paused.
class CpuAccess {
 public:
  using Fn = std::function<Result<void>(kvm::VcpuFd& cpu, ExitDispatch& dispatch)>;

  CpuAccess(std::span<const std::unique_ptr<Vcpu>> cpus,
            std::span<const std::unique_ptr<ExitDispatch>> dispatches)
      : cpus_(cpus), dispatches_(dispatches) {}

  std::size_t count() const noexcept { return cpus_.size(); }
  // Runs `fn` on that CPU's thread and waits. Errors: fn's; kTimeout, after which nothing runs.
  Result<void> with(std::size_t index, const Fn& fn) const {
    // What a closure that comes too late touches has to outlive this call: it is never run then.
    Result<void> result;
    VMM_TRY(cpus_[index]->call([&](kvm::VcpuFd& cpu) { result = fn(cpu, *dispatches_[index]); },
                               kTimeout));
    return result;
  }

 private:
  static constexpr std::chrono::seconds kTimeout{10};
  std::span<const std::unique_ptr<Vcpu>> cpus_;
  std::span<const std::unique_ptr<ExitDispatch>> dispatches_;
};

}  // namespace vmm
