// The debugger's breakpoints and watchpoints: which of the ways to stop a CPU fits, and what it
// needs. INT3 in memory, debug registers, or pages that the guest cannot write or not even read
// (ram_slots.h).
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "base/le.h"
#include "memory/page_walk.h"
#include "vmm/debug/debugger_on_cpu.h"
#include "vmm/debug/kvm_memory_msrs.h"
#include "vmm/debug/needed_pages.h"
#include "vmm/doctor/host_probes.h"
#include "vmm/doctor/quirks.h"
#include "vmm/x86/kernel_contexts.h"
#include "vmm/x86/paging_context.h"

namespace vmm::debug {
namespace {

constexpr std::uint64_t kPage = RamSlots::kPage;

// Larger data is not watched: its pages are slots, and its bytes are compared.
constexpr std::uint64_t kMostWatched = MiB(4);

// RSP0 to RSP2 and IST1 to IST7 of a 64-bit task state segment (SDM volume 3, 8.7).
constexpr std::array<std::uint64_t, 10> kTssStacks{0x04, 0x0c, 0x14, 0x24, 0x2c,
                                                   0x34, 0x3c, 0x44, 0x4c, 0x54};

constexpr std::string_view kIsStack =
    "a stack is in the same page, and the processor pushes interrupts' frames there unseen; gdb "
    "can watch by steps (set can-use-hw-watchpoints 0)";
constexpr std::string_view kIsNeeded =
    "its page has code, page tables or descriptors, or KVM writes there, and the processor or KVM "
    "could not get at them";

Gpa page_of(Gpa at) { return Gpa(at.value & ~(kPage - 1)); }

}  // namespace

Result<bool> Debugger::watchpoints_fire() {
  if (!watchpoints_fire_) {
    const kvm::System& system = *VMM_TRY(machine())->machine().system;
    doctor::ProbeGuest guest = VMM_TRY(doctor::ProbeGuest::create(system));
    watchpoints_fire_ = VMM_TRY(doctor::probe_watchpoint(guest)).works;
  }
  return *watchpoints_fire_;
}

Result<bool> Debugger::user_code_stops() {
  if (!user_code_stops_) {
    // A KVM that interprets the kernel runs user code natively, and sees none of it.
    const kvm::System& system = *VMM_TRY(machine())->machine().system;
    user_code_stops_ = !VMM_TRY(host_quirks(system)).interpreted_kernel;
  }
  return *user_code_stops_;
}

// On a host that does not stop user code, a breakpoint there would kill the process instead.
Result<void> Debugger::check_user_code(const CpuState& state, const Breakpoint& point,
                                       const PageWalk& walk) {
  const bool users_only = (state.system.cr0 & x86::kCr0Pg) != 0 && walk.user &&
                          (state.system.cpl() == 3 || (state.system.cr4 & x86::kCr4Smep) != 0);
  if (!users_only || VMM_TRY(user_code_stops())) return {};
  return fail(ErrorCode::kUnsupported, "{:#x} is user code: {}", point.address, kNoUserCode);
}

Result<void> Debugger::check_slots(const Breakpoints::Entry& entry) const {
  if (!entry.in_registers()) return {};
  Breakpoints with = breakpoints_;
  with.add(entry);
  const std::size_t wanted = with.slots().size();
  if (wanted <= facts_.slots) return {};
  return fail(ErrorCode::kUnsupported, "{} debug registers would be needed, {} are there{}", wanted,
              facts_.slots,
              facts_.slots < CpuDebug::kSlots ? " (one is the syscall-fixup quirk's)" : "");
}

Result<Breakpoints::Entry> Debugger::place_code(unsigned cpu, const Breakpoint& point) {
  const GuestMemory& memory = VMM_TRY(machine())->machine().memory;
  Breakpoints::Entry entry{point};
  const CpuState state = VMM_TRY(state_locked(cpu));
  const auto context = VMM_TRY(this->context(cpu, Space::kVirtual));
  const PageWalk walk = walk_pages(memory, *context, Gva(point.address), AccessKind::kRead);
  if (walk.mapped()) VMM_TRY(check_user_code(state, point, walk));
  // In real mode KVM may deliver INT3 to the guest itself (docs/debugging.md).
  const bool real = (state.system.cr0 & x86::kCr0Pe) == 0;
  if (point.kind == BreakpointKind::kSoftware && !taped() && !real && walk.mapped() &&
      planted_.plant(memory, walk.gpa)) {
    entry.planted = walk.gpa;
  }
  return entry;
}

// The RAM behind an address range, page by page.
Result<std::vector<WatchedRange>> Debugger::pages_of(unsigned cpu, const Breakpoint& point) const {
  if (point.size > kMostWatched) {
    return fail(ErrorCode::kUnsupported, "A watchpoint has no more than {}",
                format_size(kMostWatched));
  }
  const Machine& machine = VMM_TRY(this->machine())->machine();
  const auto context = VMM_TRY(this->context(cpu, Space::kVirtual));
  const bool hides = point.kind != BreakpointKind::kWrite;
  const std::set<Gpa> stacks = taped() ? std::set<Gpa>() : stack_pages();
  const std::set<Gpa> needed = hides ? unhidable_pages() : std::set<Gpa>();
  std::vector<WatchedRange> pages;
  for (std::uint64_t done = 0; done < point.size;) {
    std::size_t size = point.size - done;
    const auto gpa = translate(machine.memory, context, point.address + done, size);
    if (!gpa || !machine.ram_slots.can_guard(page_of(*gpa))) {
      return fail(ErrorCode::kOutOfRange,
                  "{:#x} cannot be watched: no RAM that stays is mapped there", point.address);
    }
    if (stacks.contains(page_of(*gpa))) {
      return fail(ErrorCode::kUnsupported, "{:#x} cannot be watched: {}", point.address, kIsStack);
    }
    if (needed.contains(page_of(*gpa))) {
      return fail(ErrorCode::kUnsupported, "Reads of {:#x} cannot be watched: {}", point.address,
                  kIsNeeded);
    }
    pages.push_back({*GpaRange::create(*gpa, size), point.address, point.kind});
    done += size;
  }
  return pages;
}

// In debug registers, if they see data here and there are enough; else by pages that the guest
// cannot write, or cannot even read.
Result<Breakpoints::Entry> Debugger::place_watch(unsigned cpu, const Breakpoint& point) {
  if (point.size == 0) return fail(ErrorCode::kBadConfig, "Nothing is to be watched");
  Breakpoints::Entry entry{point};
  if (taped()) {
    if (point.kind != BreakpointKind::kWrite) {
      return fail(ErrorCode::kUnsupported,
                  "Of a guest that is recorded only changes of data are seen: use watch");
    }
    entry.guarded = VMM_TRY(pages_of(cpu, point));
    return entry;
  }
  const bool fires = VMM_TRY(watchpoints_fire());
  if (fires && check_slots(entry)) return entry;
  entry.guarded = VMM_TRY(pages_of(cpu, point));
  return entry;
}

Result<Breakpoints::Entry> Debugger::place(unsigned cpu, const Breakpoint& point) {
  const GuestMemory& memory = VMM_TRY(machine())->machine().memory;
  if (point.space == Space::kPhysical) {
    if (taped()) {
      return fail(ErrorCode::kUnsupported,
                  "No breakpoint at a physical address while the guest is recorded");
    }
    if ((VMM_TRY(state_locked(cpu)).system.cr0 & x86::kCr0Pe) == 0) {
      return fail(ErrorCode::kUnsupported,
                  "CPU {} is in real mode: no breakpoint at a physical address there", cpu);
    }
    VMM_TRY(planted_.plant(memory, Gpa(point.address)));
    return Breakpoints::Entry{point, Gpa(point.address)};
  }
  const bool code =
      point.kind == BreakpointKind::kSoftware || point.kind == BreakpointKind::kHardware;
  auto entry = code ? VMM_TRY(place_code(cpu, point)) : VMM_TRY(place_watch(cpu, point));
  if (!taped()) VMM_TRY(check_slots(entry));
  return entry;
}

Result<void> Debugger::insert(unsigned cpu, const Breakpoint& point) {
  const auto lock = lock_machine();
  if (breakpoints_.find(point) != nullptr) return {};
  auto entry = place(cpu, point);
  if (!entry) {
    // gdb shows the reason to nobody.
    options_.log(LogLevel::kWarning, "gdb", "no breakpoint at {:#x}: {}", point.address,
                 entry.error().message());
    return tl::unexpected<Error>(std::move(entry).error());
  }
  breakpoints_.add(*std::move(entry));
  return {};
}

Result<void> Debugger::remove(const Breakpoint& point) {
  const auto lock = lock_machine();
  const auto entry = breakpoints_.take(point);
  if (entry && entry->planted) {
    planted_.remove(VMM_TRY(machine())->machine().memory, *entry->planted);
  }
  return {};
}

// ---- guarded pages

// Where the processor may push an interrupt's frame: nothing that KVM could report, and where the
// page cannot be written, the end of the guest. So they stay writable.
std::set<Gpa> Debugger::stack_pages() const {
  std::set<Gpa> pages = stacks_;
  for (unsigned cpu = 0; cpu < control_->vcpus().size(); ++cpu) {
    const auto state = state_locked(cpu);
    const auto context = this->context(cpu, Space::kVirtual);
    if (!state || !context) continue;
    const std::uint64_t top = linear_stack(state->general, state->system);
    for (const std::uint64_t address : {top, top - kMostPushed}) {
      std::size_t size = 1;
      const auto gpa = translate(control_->machine().memory, *context, address, size);
      if (gpa) pages.insert(page_of(*gpa));
    }
    const auto tss = state->system.tr.base;
    for (const std::uint64_t offset : kTssStacks) {
      std::array<std::byte, 8> bytes{};
      const auto read = read_locked(cpu, Space::kVirtual, tss + offset, bytes);
      if (!read || *read != bytes.size() || !state->system.long_mode_active()) continue;
      std::size_t size = 1;
      const auto gpa = translate(control_->machine().memory, *context, load_le(bytes) - 1, size);
      if (gpa) pages.insert(page_of(*gpa));
    }
  }
  return pages;
}

std::set<Gpa> Debugger::unhidable_pages() const {
  std::set<Gpa> pages;
  const GuestMemory& memory = control_->machine().memory;
  for (unsigned cpu = 0; cpu < control_->vcpus().size(); ++cpu) {
    const auto state = state_locked(cpu);
    if (!state) continue;
    std::vector<PagingContext> tables;
    x86::add_kernel_context(tables, x86::privileged_context(state->system, state->general.rflags));
    for (const PagingContext& context : tables) {
      pages.merge(needed_pages(memory, context, state->system, state->linear_pc()));
    }
    (void)on_cpu(cpu, [&](kvm::VcpuFd& fd) -> Result<void> {
      for (const std::uint32_t index : kKvmMemoryMsrs) {
        const auto value = fd.msr(index);
        if (value && makes_kvm_write(index, *value)) pages.insert(page_of(Gpa(*value)));
      }
      return {};
    });
  }
  return pages;
}

std::optional<StopEvent> Debugger::on_guarded_stack(const StopEvent& event) {
  const Gpa page(event.address);
  stacks_.insert(page);
  const auto& entries = breakpoints_.entries();
  const auto watched = std::find_if(entries.begin(), entries.end(), [&](const auto& entry) {
    return std::any_of(entry.guarded.begin(), entry.guarded.end(), [&](const WatchedRange& range) {
      return page_of(range.where.base()) == page;
    });
  });
  if (watched == entries.end()) {
    if (was_asked_step(event.cpu)) return StopEvent{.kind = StopKind::kStep, .cpu = event.cpu};
    const auto gone_on = go_on(asked_);
    if (gone_on) return std::nullopt;
    return StopEvent{.note = gone_on.error().message()};
  }
  return StopEvent{.cpu = event.cpu,
                   .note = fmt::format("{:#x} cannot be watched any longer: {}",
                                       watched->point.address, kIsStack)};
}

Result<void> Debugger::guard_pages() {
  // Whoever looks at reports himself does not look after pages.
  if (options_.on_report) return {};
  Machine& machine = control_->machine();
  std::vector<WatchedRange> watched;
  std::set<Gpa> data, code, hidden;
  for (const Breakpoints::Entry& entry : breakpoints_.entries()) {
    for (const WatchedRange& range : entry.guarded) {
      watched.push_back(range);
      (range.kind == BreakpointKind::kWrite ? data : hidden).insert(page_of(range.where.base()));
    }
    if (entry.planted && machine.ram_slots.can_guard(page_of(*entry.planted))) {
      code.insert(page_of(*entry.planted));
    }
  }
  watched_.set(machine.memory, std::move(watched));
  // The CPU goes step by step: data is looked at then.
  if (taped()) return machine.ram_slots.guard({});

  // Slots are changed when they must be: a debugger takes everything out and puts it in again
  // around each stop.
  constexpr unsigned kPatience = 8;
  const std::set<Gpa>& now = machine.ram_slots.guarded();
  std::set<Gpa> wanted = data;
  wanted.insert(code.begin(), code.end());
  for (const Gpa stack : stacks_) wanted.erase(stack);
  const bool fewer = std::any_of(stacks_.begin(), stacks_.end(),
                                 [&now](Gpa stack) { return now.contains(stack); });
  // A hidden page costs more than exits: it is back at once.
  const bool same = hidden == machine.ram_slots.hidden();
  if (!fewer && same && std::includes(now.begin(), now.end(), wanted.begin(), wanted.end())) {
    idle_guards_ = now.size() == wanted.size() ? 0 : idle_guards_ + 1;
    if (idle_guards_ < kPatience) return {};
  }
  idle_guards_ = 0;
  wanted.clear();
  const std::set<Gpa> stacks = stack_pages();
  for (const Gpa page : data) {
    if (!stacks.contains(page)) continue;
    return fail(ErrorCode::kUnsupported, "GPA {} cannot be watched: {}", page, kIsStack);
  }
  const std::set<Gpa> needed = hidden.empty() ? std::set<Gpa>() : unhidable_pages();
  for (const Gpa page : hidden) {
    const bool stack = stacks.contains(page);
    if (!stack && !needed.contains(page)) continue;
    return fail(ErrorCode::kUnsupported, "Reads of GPA {} cannot be watched: {}", page,
                stack ? kIsStack : kIsNeeded);
  }
  code.insert(data.begin(), data.end());
  std::set_difference(code.begin(), code.end(), stacks.begin(), stacks.end(),
                      std::inserter(wanted, wanted.end()));
  auto guarded = machine.ram_slots.guard(wanted, hidden);
  // Planted bytes do without: they are looked after now and then.
  if (!guarded && data.empty() && hidden.empty()) return machine.ram_slots.guard({});
  return guarded;
}

Result<std::optional<WatchedMemory::Met>> Debugger::write_guarded(
    const GuestMemory& memory, Gpa to, std::span<const std::byte> bytes) {
  VMM_TRY(planted_.write(memory, to, bytes));
  (void)watched_.changed(memory);  // it is known now
  return watched_.written(to, bytes.size());
}

Result<std::optional<WatchedMemory::Met>> Debugger::read_hidden(const GuestMemory& memory, Gpa from,
                                                                std::span<std::byte> bytes) {
  VMM_TRY(memory.read(from, bytes));
  planted_.hide(from, bytes);
  return watched_.read(from, bytes.size());
}

std::optional<WatchedMemory::Met> Debugger::look_at_memory(const GuestMemory& memory) {
  renew_planted(memory);
  return watched_.changed(memory);
}

}  // namespace vmm::debug
