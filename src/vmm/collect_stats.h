// What Vm::stats() counts, put together.
#pragma once

#include <memory>
#include <span>

#include "vmm/exit_dispatch.h"
#include "vmm/machine.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"

namespace vmm {

// All are borrowed; the CPUs may run.
VmStats collect_stats(const Machine& machine, std::span<const std::unique_ptr<Vcpu>> vcpus,
                      std::span<const std::unique_ptr<ExitDispatch>> dispatches);

}  // namespace vmm
