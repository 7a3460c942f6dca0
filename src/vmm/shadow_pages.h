// What KVM derives from a guest's page tables where the processor does not walk them itself.
//
// It learns of a change when the guest makes it, and not when this process writes guest memory: who
// does, makes it drop what it has. Copies come about where a CPU meets a page fault, and nowhere
// else; so a guest whose kernel is interpreted has none, as long as it runs nothing but that.
#pragma once

#include <future>
#include <optional>
#include <vector>

#include "base/result.h"
#include "vmm/kvm/vcpu_stat.h"
#include "vmm/machine.h"
#include "vmm/snapshot/cpu_access.h"

namespace vmm {

// Makes KVM drop all of them: slow, and on other hosts much is lost by it. Any thread. Errors:
// KVM's.
Result<void> drop_shadow_pages(const Machine& machine);

// Whether a machine has any. For whoever holds its CPUs at rest.
class ShadowPages {
 public:
  // False: for certain none. That is so on hosts whose processors walk guests' tables themselves,
  // and while no CPU has met a page fault since dropped().
  bool possible(const CpuAccess& cpus);
  // All were dropped, since possible() was asked.
  void dropped() noexcept { dropped_at_ = faults_; }

 private:
  using Count = std::optional<std::uint64_t>;
  // How many page faults there were; nothing when KVM does not say.
  Count page_faults(const CpuAccess& cpus);

  std::optional<bool> host_has_them_ = {};
  std::vector<kvm::VcpuStat> counters_;  // of each CPU, once they are needed
  bool counted_ = true;                  // KVM says how many
  Count faults_ = {};
  Count dropped_at_ = 0;  // a new machine has none
};

// drop_shadow_pages() on the machine's event loop, while its user puts back what they were made of:
// most of the time is spent waiting for KVM's readers. No CPU runs meanwhile. The destructor waits.
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
