#include "vmm/shadow_pages.h"

#include <fcntl.h>
#include <unistd.h>

#include <memory>
#include <utility>

#include "base/unique_fd.h"

namespace vmm {
namespace {

bool says_no(const char* parameter) {
  const UniqueFd file(::open(parameter, O_RDONLY | O_CLOEXEC));
  char value = 0;
  return file && ::read(file.get(), &value, 1) == 1 && (value == 'N' || value == '0');
}

// By what the kernel says of its modules; what it does not say counts as no.
bool host_has_shadow_pages() {
  return ::access("/sys/module/kvm_pvm", F_OK) == 0 ||
         says_no("/sys/module/kvm_intel/parameters/ept") ||
         says_no("/sys/module/kvm_amd/parameters/npt");
}

}  // namespace

// They go away with a memory slot: any slot, so this is one that shows the guest a page of its own
// RAM, for no longer than that takes.
Result<void> drop_shadow_pages(const Machine& machine) {
  constexpr Gpa kNowhere(0xfef0'0000);  // between local APICs and ROM, where a PC has nothing
  constexpr GpaRange kRange = *GpaRange::create(kNowhere, 4096);
  const std::uint32_t last = machine.system->capabilities().memory_slots - 1;
  std::byte* const ram = machine.memory.regions().front().hva();
  VMM_TRY(machine.vm.set_slot({.number = last, .range = kRange, .hva = ram}));
  return machine.vm.set_slot({.number = last, .range = {}});
}

bool ShadowPages::possible(const CpuAccess& cpus) {
  if (!host_has_them_) host_has_them_ = host_has_shadow_pages();
  if (!*host_has_them_) return false;
  faults_ = page_faults(cpus);
  return !faults_ || faults_ != dropped_at_;
}

ShadowPages::Count ShadowPages::page_faults(const CpuAccess& cpus) {
  while (counted_ && counters_.size() < cpus.count()) {
    const auto open = [&](kvm::VcpuFd& cpu, ExitDispatch&) -> Result<void> {
      counters_.push_back(VMM_TRY(kvm::VcpuStat::open(cpu, "pf_taken")));
      return {};
    };
    counted_ = cpus.with(counters_.size(), open).has_value();
  }
  std::uint64_t sum = 0;
  for (const kvm::VcpuStat& counter : counters_) {
    const auto count = counter.value();
    counted_ = counted_ && count;
    sum += count.value_or(0);
  }
  return counted_ ? Count(sum) : std::nullopt;
}

ShadowPagesDropped::ShadowPagesDropped(const Machine& machine) {
  auto task = std::make_shared<std::packaged_task<Result<void>()>>(
      [&machine] { return drop_shadow_pages(machine); });
  done_ = task->get_future();
  machine.loop.post([task] { (*task)(); });
}

ShadowPagesDropped::~ShadowPagesDropped() {
  if (done_.valid()) done_.wait();
}

}  // namespace vmm
