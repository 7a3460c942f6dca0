// What KVM derives from a guest's page tables where the processor does not walk them itself.
#pragma once

#include <future>

#include "base/result.h"
#include "vmm/machine.h"

namespace vmm {

// Whether this host's KVM keeps copies of guests' page tables (shadow paging): it learns of a
// change when the guest makes it, and not when this process writes guest memory. By what the kernel
// says of its modules; what it does not say counts as no.
bool host_has_shadow_pages();

// Makes KVM drop all of them: slow, and on other hosts much is lost by it. Errors: KVM's.
Result<void> drop_shadow_pages(const Machine& machine);

// The same on the machine's event loop, while its user puts back what they were made of: most of
// the time is spent waiting for KVM's readers. No CPU runs meanwhile. The destructor waits.
class ShadowPagesDropped {
 public:
  // `machine` is borrowed, and its event loop at rest.
  explicit ShadowPagesDropped(const Machine& machine);
  ~ShadowPagesDropped();
  ShadowPagesDropped(const ShadowPagesDropped&) = delete;
  ShadowPagesDropped& operator=(const ShadowPagesDropped&) = delete;

  // Waits; once. Errors: as drop_shadow_pages().
  Result<void> wait() { return done_.get(); }

 private:
  std::future<Result<void>> done_;
};

}  // namespace vmm
