#include "vmm/debug/monitor_linux.h"

#include "vmm/guest_linux/guest_kernel.h"
#include "vmm/guest_linux/kernel_log.h"
#include "vmm/guest_linux/module_list.h"
#include "vmm/guest_linux/task_list.h"
#include "vmm/x86/kernel_contexts.h"
#include "vmm/x86/paging_context.h"
#include "vmm/x86/registers.h"

namespace vmm::debug {
namespace {

using Answer = Result<std::string>;
using Words = std::vector<std::string_view>;

Result<guest_linux::GuestKernel> open_kernel(const MonitorView& view) {
  guest_linux::KernelSources sources{
      .memory = view.control.machine().memory, .tables = {}, .symbols = view.symbols, .offset = {}};
  for (unsigned cpu = 0; cpu < view.control.vcpus().size(); ++cpu) {
    const CpuState state = VMM_TRY(view.state(cpu));
    const PagingContext context = x86::privileged_context(state.system, state.general.rflags);
    if ((context.cr0 & x86::kCr0Pg) != 0) x86::add_kernel_context(sources.tables, context);
    if (cpu == 0 && view.symbols != nullptr) {
      sources.offset = view.symbols->kernel_offset(state, view.control.machine().kernel_slide);
    }
  }
  return guest_linux::GuestKernel::open(std::move(sources));
}

}  // namespace

Answer linux_log(const MonitorView& view, const Words& words) {
  if (words.size() > 1) return fail(ErrorCode::kBadConfig, "dmesg [N]");
  constexpr std::uint64_t kAll = 1U << 18;
  const std::uint64_t most = words.empty() ? kAll : VMM_TRY(monitor_number(words[0]));
  const auto kernel = VMM_TRY(open_kernel(view));
  return guest_linux::format_kernel_log(VMM_TRY(
      guest_linux::read_kernel_log(kernel, static_cast<std::size_t>(std::min(most, kAll)))));
}

Answer linux_tasks(const MonitorView& view, const Words& words) {
  if (!words.empty()) return fail(ErrorCode::kBadConfig, "ps takes nothing");
  const auto kernel = VMM_TRY(open_kernel(view));
  return guest_linux::format_tasks(VMM_TRY(guest_linux::read_tasks(kernel)));
}

Answer linux_modules(const MonitorView& view, const Words& words) {
  if (!words.empty()) return fail(ErrorCode::kBadConfig, "lsmod takes nothing");
  const auto kernel = VMM_TRY(open_kernel(view));
  return guest_linux::format_modules(VMM_TRY(guest_linux::read_modules(kernel)));
}

}  // namespace vmm::debug
