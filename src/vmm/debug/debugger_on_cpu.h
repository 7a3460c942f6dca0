// How the debugger's parts get at a CPU.
#pragma once

#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include "vmm/debug/debugger.h"
#include "vmm/run_control.h"

namespace vmm::debug {

template <typename Fn>
auto Debugger::on_cpu(unsigned cpu, Fn fn) const -> std::invoke_result_t<Fn, kvm::VcpuFd&> {
  const auto& vcpus = VMM_TRY(machine())->vcpus();
  if (cpu >= vcpus.size()) return fail(ErrorCode::kOutOfRange, "There is no CPU {}", cpu);
  // Shared with the closure, which outlives this call if the vCPU does not answer in time.
  auto answer = std::make_shared<std::optional<std::invoke_result_t<Fn, kvm::VcpuFd&>>>();
  VMM_TRY(vcpus[cpu]->call([answer, fn](kvm::VcpuFd& fd) { *answer = fn(fd); },
                           RunControl::kVcpuTimeout));
  return std::move(**answer);
}

}  // namespace vmm::debug
