// From the shared page of a vCPU to a VcpuExit.
#pragma once

#include "vmm/vcpu_exit.h"

struct kvm_run;

namespace vmm::kvm {

// Spans in the answer point into *run.
VcpuExit decode_exit(kvm_run* run);

}  // namespace vmm::kvm
