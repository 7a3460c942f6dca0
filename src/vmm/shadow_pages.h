// What KVM derives from a guest's page tables where the processor does not walk them itself.
#pragma once

#include "base/result.h"
#include "vmm/machine.h"

namespace vmm {

// Whether this host's KVM keeps copies of guests' page tables (shadow paging): it learns of a
// change when the guest makes it, and not when this process writes guest memory. By what the kernel
// says of its modules; what it does not say counts as no.
bool host_has_shadow_pages();

// Makes KVM drop all of them: slow, and on other hosts much is lost by it. Errors: KVM's.
Result<void> drop_shadow_pages(const Machine& machine);

}  // namespace vmm
