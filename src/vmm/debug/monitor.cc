#include "vmm/debug/monitor.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <initializer_list>
#include <set>
#include <vector>

#include "base/size.h"
#include "devices/state_io.h"
#include "memory/page_walk.h"
#include "vmm/crash_report.h"
#include "vmm/debug/monitor_linux.h"
#include "vmm/debug/packet.h"
#include "vmm/snapshot/snapshot.h"
#include "vmm/trace/exit_text.h"
#include "vmm/x86/format.h"
#include "vmm/x86/paging_context.h"

namespace vmm::debug {
namespace {

using Words = std::vector<std::string_view>;
using Answer = Result<std::string>;

Words split_words(std::string_view text) {
  Words words;
  while (true) {
    const std::size_t begin = text.find_first_not_of(" \t");
    if (begin == std::string_view::npos) return words;
    text.remove_prefix(begin);
    const std::size_t end = std::min(text.find_first_of(" \t"), text.size());
    words.push_back(text.substr(0, end));
    text.remove_prefix(end);
  }
}

}  // namespace

Result<std::uint64_t> monitor_number(std::string_view text) {
  std::string_view digits = text;
  const bool hex = digits.substr(0, 2) == "0x";
  if (hex) digits.remove_prefix(2);
  std::uint64_t value = 0;
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), value, hex ? 16 : 10);
  if (error != std::errc() || end != digits.data() + digits.size() || digits.empty()) {
    return fail(ErrorCode::kBadConfig, "'{}' is no number (0x... for a hexadecimal one)", text);
  }
  return value;
}

namespace {

std::optional<std::uint64_t> kernel_offset(const MonitorView& view, const CpuState& state) {
  return view.symbols->kernel_offset(state, view.control.machine().kernel_slide);
}

Answer registers(const MonitorView& view, const Words&) {
  const CpuState state = VMM_TRY(view.state(view.cpu));
  std::string text =
      fmt::format("CPU {}\n{}", view.cpu, x86::format_registers(state.general, state.system));
  if (view.symbols != nullptr) {
    const std::uint64_t offset = kernel_offset(view, state).value_or(0);
    const std::string name = view.symbols->name_of(state.linear_pc() - offset);
    if (!name.empty()) text += fmt::format("rip is {}\n", name);
  }
  return text;
}

Answer controls(const MonitorView& view, const Words&) {
  const CpuState state = VMM_TRY(view.state(view.cpu));
  const x86::SystemRegisters& s = state.system;
  return fmt::format(
      "cr0 {:#x}\ncr2 {:#x}\ncr3 {:#x}\ncr4 {:#x}\ncr8 {:#x}\nefer {:#x}\ndr0 {:#x}\ndr1 {:#x}\n"
      "dr2 {:#x}\ndr3 {:#x}\ndr6 {:#x}\ndr7 {:#x}\n",
      s.cr0, s.cr2, s.cr3, s.cr4, s.cr8, s.efer, state.debug.address[0], state.debug.address[1],
      state.debug.address[2], state.debug.address[3], state.debug.dr6, state.debug.dr7);
}

Answer msrs(const MonitorView& view, const Words& words) {
  const CpuState state = VMM_TRY(view.state(view.cpu));
  if (words.size() == 1) {
    const auto index = VMM_TRY(monitor_number(words[0]));
    if (index > 0xffffffff) return fail(ErrorCode::kBadConfig, "An MSR's number has 32 bits");
    std::optional<Result<std::uint64_t>> value;
    VMM_TRY(view.control.vcpus()[view.cpu]->call(
        [&](kvm::VcpuFd& fd) { value = fd.msr(static_cast<std::uint32_t>(index)); },
        RunControl::kVcpuTimeout));
    return fmt::format("{:#x} {:#x}\n", index, VMM_TRY(std::move(*value)));
  }
  std::string text;
  for (std::size_t i = 0; i < kNamedMsrs.size(); ++i) {
    if (!state.msrs[i]) continue;
    text += fmt::format("{:<14} {:#010x} {:#x}\n", kNamedMsrs[i].name, kNamedMsrs[i].index,
                        *state.msrs[i]);
  }
  return text;
}

std::string device_text(const DeviceRef& device) {
  StateWriter writer;
  device.with([&writer](const Device& d) { d.save(writer); });
  return fmt::format("{} {}\n", device.id(), writer.whole().text(1));
}

std::vector<DeviceRef> all_devices(const MonitorView& view) {
  return view.control.machine().roster.with([](const Roster& roster) { return roster.devices; });
}

Answer devices(const MonitorView& view, const Words& words) {
  std::string text;
  for (const DeviceRef& device : all_devices(view)) {
    if (words.empty()) {
      text += fmt::format("{}\n", device.id());
    } else if (device.id() == words[0]) {
      text += device_text(device);
    }
  }
  if (text.empty() && !words.empty()) {
    return fail(ErrorCode::kBadConfig, "There is no device '{}'", words[0]);
  }
  return text;
}

// The devices whose names begin like that; where they are KVM's, it has no text for them.
Answer chips(const MonitorView& view, std::initializer_list<std::string_view> prefixes) {
  std::string text;
  for (const DeviceRef& device : all_devices(view)) {
    for (const std::string_view prefix : prefixes) {
      if (device.id().substr(0, prefix.size()) == prefix) text += device_text(device);
    }
  }
  if (text.empty()) return std::string("It is in KVM (--irqchip user has it here).\n");
  return text;
}

Answer lapic(const MonitorView& view, const Words&) { return chips(view, {"lapic"}); }
Answer ioapic(const MonitorView& view, const Words&) { return chips(view, {"ioapic"}); }
Answer pic(const MonitorView& view, const Words&) { return chips(view, {"pic"}); }
Answer irq(const MonitorView& view, const Words&) { return chips(view, {"ioapic", "pic"}); }
Answer pit(const MonitorView& view, const Words&) { return chips(view, {"pit"}); }

std::string kind_text(const GuestRegion& region) {
  switch (region.kind()) {
    case RegionKind::kBlocks: {
      const MemoryBlocks& blocks = *region.blocks();
      return fmt::format("pluggable, {} of it in use, {}",
                         format_size(blocks.plugged_count() * blocks.block_size()),
                         format_size(region.range().size()));
    }
    case RegionKind::kFile:
      return fmt::format("persistent{}, {}", region.read_only() ? " (read-only)" : "",
                         format_size(region.range().size()));
    case RegionKind::kRam:
      break;
  }
  return fmt::format("RAM, {}", format_size(region.range().size()));
}

Answer memory(const MonitorView& view, const Words&) {
  std::string text;
  for (const GuestRegion& region : view.control.machine().memory.regions()) {
    text += fmt::format("{:#014x} {:#014x} {}\n", region.range().base().value,
                        region.range().end().value - 1, kind_text(region));
  }
  for (const Window& window : view.control.machine().mmio.windows()) {
    text += fmt::format("{:#014x} {:#014x} device\n", window.base, window.base + (window.size - 1));
  }
  return text;
}

Answer slots(const MonitorView& view, const Words&) {
  std::string text;
  unsigned slot = 0;
  for (const GuestRegion& region : view.control.machine().memory.regions()) {
    text +=
        fmt::format("slot {} GPA {:#x} size {:#x} HVA {:#x}\n", slot++, region.range().base().value,
                    region.range().size(), reinterpret_cast<std::uintptr_t>(region.hva()));
  }
  return text;
}

Answer exits(const MonitorView& view, const Words&) {
  if (!view.stats) return std::string();
  const VmStats stats = view.stats();
  std::string text;
  for (const auto& [kind, count] : stats.exits) text += fmt::format("{:<18} {}\n", kind, count);
  text += fmt::format("{:<18} {}\n{:<18} {}\n", "unclaimed", stats.unclaimed, "completed",
                      stats.completed_instructions);
  return text;
}

// The flight recorder: the last exits of each CPU.
constexpr std::uint64_t kRecorded = 16;  // unless somebody asks for more

Result<KernelNames> names_in(const MonitorView& view) {
  KernelNames names{.symbols = view.symbols};
  if (view.symbols != nullptr) {
    names.offset = kernel_offset(view, VMM_TRY(view.state(view.cpu))).value_or(0);
  }
  return names;
}

Answer trace(const MonitorView& view, const Words& words) {
  const std::uint64_t most = words.empty() ? kRecorded : VMM_TRY(monitor_number(words[0]));
  const std::string text = last_exits_text(view.control.machine(), static_cast<std::size_t>(most),
                                           VMM_TRY(names_in(view)));
  return text.empty() ? std::string("No exits are recorded.\n") : text;
}

// The other part of it: interrupts and requests to devices.
Answer events(const MonitorView& view, const Words& words) {
  const std::uint64_t most = words.empty() ? kRecorded : VMM_TRY(monitor_number(words[0]));
  const auto records = view.control.machine().events.last(static_cast<std::size_t>(most));
  std::string text;
  for (const DeviceEvent& record : records) {
    text += fmt::format("{:>10.6f} s #{} {}\n",
                        static_cast<double>(record.time - records.back().time) / 1e9, record.number,
                        device_event_text(record));
  }
  return text.empty() ? std::string("No events are recorded.\n") : text;
}

// Both, of all CPUs and devices, in the order of time.
Answer log(const MonitorView& view, const Words& words) {
  const auto most =
      static_cast<std::size_t>(words.empty() ? kRecorded : VMM_TRY(monitor_number(words[0])));
  const KernelNames names = VMM_TRY(names_in(view));
  const Machine& machine = view.control.machine();
  std::vector<std::pair<std::int64_t, std::string>> lines;
  for (std::size_t cpu = 0; cpu < machine.exit_rings.size(); ++cpu) {
    for (const ExitRecord& record : machine.exit_rings[cpu]->last(most)) {
      lines.emplace_back(record.time, fmt::format("vcpu{} {}{}", cpu, exit_text(record),
                                                  record.rip != 0 ? names.of(record.rip) : ""));
    }
  }
  for (const DeviceEvent& record : machine.events.last(most)) {
    lines.emplace_back(
        record.time, device_event_text(record) + (record.rip() != 0 ? names.of(record.rip()) : ""));
  }
  std::stable_sort(lines.begin(), lines.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::string text;
  for (std::size_t i = lines.size() - std::min(lines.size(), most); i < lines.size(); ++i) {
    text += fmt::format("{:>10.6f} s {}\n",
                        static_cast<double>(lines[i].first - lines.back().first) / 1e9,
                        lines[i].second);
  }
  return text.empty() ? std::string("Nothing is recorded.\n") : text;
}

std::string how(const MonitorView& view, const Breakpoints::Entry& entry) {
  const std::set<Gpa>& guarded = view.control.machine().ram_slots.guarded();
  std::string text = ", in a debug register";
  if (entry.planted) {
    const Gpa page(entry.planted->value & ~(RamSlots::kPage - 1));
    text = fmt::format(", planted at GPA {:#x}{}", entry.planted->value,
                       guarded.contains(page) ? ", its page guarded" : "");
  } else if (!entry.guarded.empty()) {
    text = fmt::format(", {} bytes, {} pages {}", entry.point.size, entry.guarded.size(),
                       entry.point.kind == BreakpointKind::kWrite ? "guarded" : "hidden");
  }
  if (!entry.conditions.empty()) text += ", under a condition";
  return text;
}

Answer breakpoints(const MonitorView& view, const Words&) {
  static constexpr std::array<std::string_view, 5> kNames{"software", "hardware", "write watch",
                                                          "read watch", "access watch"};
  std::string text;
  for (const Breakpoints::Entry& entry : view.breakpoints.entries()) {
    text += fmt::format("{:#x} {}{}\n", entry.point.address,
                        kNames[static_cast<std::size_t>(entry.point.kind)], how(view, entry));
  }
  if (!text.empty()) return text;
  return std::string(
      "There are none: gdb takes them out while the guest stands (set breakpoint always-inserted "
      "on).\n");
}

Answer cpu_list(const MonitorView& view, const Words&) {
  std::string text;
  for (unsigned i = 0; i < view.control.vcpus().size(); ++i) {
    const CpuState state = VMM_TRY(view.state(i));
    text += fmt::format("{} CPU {} pc {:#x} CPL {} {}\n", i == view.cpu ? '*' : ' ', i,
                        state.linear_pc(), state.system.cpl(),
                        state.system.code_is_64bit()  ? "64-bit"
                        : state.system.cs.default_big ? "32-bit"
                                                      : "16-bit");
  }
  return text;
}

Answer version(const MonitorView&, const Words&) {
  return std::string("vmm\n");  // the kernel's scripts ask whether anybody answers
}

Answer crash(const MonitorView& view, const Words&) {
  if (view.crash == nullptr) return std::string("The guest has not crashed.\n");
  return fmt::format("{}: {}\n{}", to_string(view.crash->reason), view.crash->detail,
                     view.crash->report);
}

PagingContext kernel_context(const CpuState& state) {
  return x86::privileged_context(state.system, state.general.rflags);
}

// Present entries of the top table, with the addresses that they lead to: where to look further.
Answer tlb(const MonitorView& view, const Words&) {
  const CpuState state = VMM_TRY(view.state(view.cpu));
  const PagingContext context = kernel_context(state);
  if ((context.cr0 & x86::kCr0Pg) == 0) return std::string("Paging is off.\n");
  if (!state.system.long_mode_active()) {
    return fail(ErrorCode::kUnsupported, "Only for page tables of 64-bit mode: use xlate");
  }
  const GuestMemory& ram = view.control.machine().memory;
  const bool five = (context.cr4 & x86::kCr4La57) != 0;
  const unsigned shift = five ? 48 : 39;
  std::string text;
  for (std::uint64_t i = 0; i < 512; ++i) {
    const Gpa at((context.cr3 & 0x000ffffffffff000) + 8 * i);
    const auto entry = ram.read<std::uint64_t>(at);
    if (!entry || (*entry & kEntryPresent) == 0) continue;
    const std::uint64_t sign = i >= 256 ? ~std::uint64_t{0} << (shift + 9) : 0;
    text += fmt::format("{:#018x}: {:#018x}{}{}{}\n", sign | i << shift, *entry,
                        (*entry & kEntryWritable) != 0 ? " W" : "",
                        (*entry & kEntryUser) != 0 ? " U" : "",
                        (*entry & kEntryNoExecute) != 0 ? " NX" : "");
  }
  return text;
}

Answer hva_text(const MonitorView& view, Gpa gpa) {
  for (const GuestRegion& region : view.control.machine().memory.regions()) {
    if (!region.range().contains(gpa)) continue;
    return fmt::format(
        "GPA {:#x} is HVA {:#x}\n", gpa.value,
        reinterpret_cast<std::uintptr_t>(region.hva()) + gpa.offset_from(region.range().base()));
  }
  return fail(ErrorCode::kOutOfRange, "There is no RAM at GPA {:#x}", gpa.value);
}

Answer translate(const MonitorView& view, const Words& words) {
  if (words.empty() || words.size() > 2) {
    return fail(ErrorCode::kBadConfig, "xlate ADDRESS [CR3]");
  }
  const CpuState state = VMM_TRY(view.state(view.cpu));
  PagingContext context = kernel_context(state);
  const std::uint64_t address = VMM_TRY(monitor_number(words[0]));
  if (words.size() == 2) context.cr3 = VMM_TRY(monitor_number(words[1]));
  const GuestMemory& ram = view.control.machine().memory;
  const PageWalk walk = walk_pages(ram, context, Gva(address), AccessKind::kRead);
  std::string text = fmt::format("{:#x}\n{}", address, x86::format_walk(walk, ram));
  if (!walk.mapped()) return text;
  text += fmt::format("  {}{}{}\n", walk.writable ? "writable" : "read-only",
                      walk.user ? ", user" : "", walk.executable ? ", executable" : "");
  if (const auto hva = hva_text(view, walk.gpa)) text += "  " + *hva;
  return text;
}

Answer physical_to_host(const MonitorView& view, const Words& words) {
  if (words.size() != 1) return fail(ErrorCode::kBadConfig, "gpa2hva ADDRESS");
  return hva_text(view, Gpa(VMM_TRY(monitor_number(words[0]))));
}

Answer interrupt_line(const MonitorView& view, const Words& words) {
  if (words.size() != 1) return fail(ErrorCode::kBadConfig, "irq NUMBER");
  const std::uint64_t gsi = VMM_TRY(monitor_number(words[0]));
  constexpr std::uint64_t kPins = 24;
  if (gsi >= kPins) return fail(ErrorCode::kBadConfig, "Lines are 0 to 23");
  view.control.machine().irqs.pulse(static_cast<std::uint32_t>(gsi));
  return fmt::format("Interrupt line {} was raised and lowered.\n", gsi);
}

Answer nmi(const MonitorView& view, const Words&) {
  VMM_TRY(view.may_nmi());
  std::optional<Result<void>> done;
  VMM_TRY(view.control.vcpus()[view.cpu]->call([&](kvm::VcpuFd& fd) { done = fd.nmi(); },
                                               RunControl::kVcpuTimeout));
  VMM_TRY(std::move(*done));
  return fmt::format("CPU {} gets an NMI when it goes on.\n", view.cpu);
}

Answer kaslr(const MonitorView& view, const Words&) {
  if (view.symbols == nullptr) {
    return std::string("Without --symbols it is not known where the kernel should lie.\n");
  }
  const auto offset = kernel_offset(view, VMM_TRY(view.state(view.cpu)));
  if (!offset) return std::string("The kernel has not told yet: it has set up no system calls.\n");
  // Variables of each CPU are numbered from zero, wherever the kernel lies.
  return fmt::format(
      "The kernel lies {0:#x} behind its symbols. gdb was told so when it connected; for the "
      "variables "
      "of each CPU, too, and if it came earlier:\n"
      "  symbol-file\n"
      "  add-symbol-file vmlinux -o {0:#x} -s .data..percpu 0\n",
      *offset);
}

std::string name_of(const MonitorView& view, const CpuState& state) {
  if (view.symbols == nullptr) return {};
  const std::uint64_t offset = kernel_offset(view, state).value_or(0);
  const std::string name = view.symbols->name_of(state.linear_pc() - offset);
  return name.empty() ? name : fmt::format(" <{}>", name);
}

// "1s", "250ms", "off".
Answer checkpoint_every(const MonitorView& view, std::string_view text) {
  constexpr std::uint64_t kLeast = 100;  // milliseconds: how often somebody looks
  constexpr std::uint64_t kMost = 86'400'000;
  std::uint64_t milliseconds = 0;
  if (text.size() > 2 && text.substr(text.size() - 2) == "ms") {
    milliseconds = VMM_TRY(monitor_number(text.substr(0, text.size() - 2)));
  } else if (text.size() > 1 && text.back() == 's') {
    const auto seconds = VMM_TRY(monitor_number(text.substr(0, text.size() - 1)));
    milliseconds = std::min(seconds, kMost) * 1000;
  } else if (text != "off") {
    return fail(ErrorCode::kBadConfig, "checkpoint every 5s, 500ms or off");
  }
  if (text != "off" && (milliseconds < kLeast || milliseconds > kMost)) {
    return fail(ErrorCode::kBadConfig, "Every {} ms at most, and once a day at least", kLeast);
  }
  view.every(std::chrono::milliseconds(milliseconds));
  return milliseconds == 0
             ? std::string("No checkpoint is made by itself.\n")
             : fmt::format("A checkpoint every {} ms while the guest runs; the last {} are kept.\n",
                           milliseconds, Checkpoints::kMost);
}

Answer checkpoint(const MonitorView& view, const Words& words) {
  const bool every = !words.empty() && words[0] == "every";
  if (every && words.size() == 2) return checkpoint_every(view, words[1]);
  if (every || words.size() > 1) {
    return fail(ErrorCode::kBadConfig, "checkpoint [NAME|every TIME|every off]");
  }
  const CpuState state = VMM_TRY(view.state(0));
  auto snapshot = VMM_TRY(view.snapshot());
  const std::string& name = view.checkpoints.add(words.empty() ? std::string_view() : words[0],
                                                 std::move(snapshot), state.linear_pc());
  return fmt::format("Checkpoint {} is at {:#x}{}.\n", name, state.linear_pc(),
                     name_of(view, state));
}

Answer checkpoint_list(const MonitorView& view, const Words&) {
  if (view.checkpoints.all().empty()) return std::string("There are none.\n");
  std::string text;
  const auto now = std::chrono::steady_clock::now();
  for (const Checkpoints::Checkpoint& known : view.checkpoints.all()) {
    const std::chrono::duration<double> age = now - known.made;
    text += fmt::format("{:<16} pc {:#x}, {:.1f} s ago, {} of memory\n", known.name, known.pc,
                        age.count(), format_size(known.snapshot->stored_bytes()));
  }
  return text;
}

Answer rewind(const MonitorView& view, const Words& words) {
  const Checkpoints::Checkpoint& to =
      *VMM_TRY(view.checkpoints.find(words.empty() ? std::string_view() : words[0]));
  VMM_TRY(view.reset_to(to.snapshot));
  return fmt::format(
      "The machine is as it was at checkpoint {}; what it had sent, and its disks' files, are as "
      "they are now.\ngdb does not know: \"maintenance flush register-cache\" and \"info "
      "registers rip\".\n",
      to.name);
}

Answer record(const MonitorView& view, const Words& words) {
  if (words.size() > 2) return fail(ErrorCode::kBadConfig, "record [on [STEPS]|off]");
  const std::uint64_t steps = words.size() == 2 ? VMM_TRY(monitor_number(words[1])) : 0;
  if (words.size() == 2 && steps == 0) return fail(ErrorCode::kBadConfig, "STEPS is at least 1");
  return view.record(words.empty() ? std::string_view() : words[0],
                     static_cast<std::size_t>(steps));
}

struct Command {
  std::string_view name;
  std::string_view arguments;
  std::string_view help;
  Answer (*run)(const MonitorView& view, const Words& words);
};

Answer help(const MonitorView& view, const Words& words);

constexpr auto kCommands = std::to_array<Command>({
    {"help", "", "this", help},
    {"arch", "auto|x86-64|i386|i8086", "how registers are described to the next connection",
     nullptr},
    {"checkpoint", "[NAME|every TIME|every off]", "keeps the machine as it is now, in memory",
     checkpoint},
    {"checkpoints", "", "what rewind can go back to", checkpoint_list},
    {"dmesg", "[N]", "a Linux guest's log, or the last N messages of it", linux_log},
    {"gpa2hva", "ADDRESS", "where a guest-physical address lies in this process", physical_to_host},
    {"info breakpoints", "", "what is inserted, and how", breakpoints},
    {"info cpus", "", "where each CPU is", cpu_list},
    {"info cr", "", "control and debug registers", controls},
    {"info crash", "", "why the guest cannot go on", crash},
    {"info devices", "[NAME]", "the devices, or all state of one", devices},
    {"info events", "[N]", "the machine's last N interrupts and requests to devices", events},
    {"info exits", "", "exits of the guest, by kind", exits},
    {"info ioapic", "", "the I/O APIC", ioapic},
    {"info irq", "", "the same, and the PIC", irq},
    {"info lapic", "", "the local APICs", lapic},
    {"info mem", "", "RAM and device windows by guest-physical address", memory},
    {"info msr", "[NUMBER]", "MSRs by name, or any one", msrs},
    {"info pic", "", "the 8259A pair", pic},
    {"info pit", "", "the 8254", pit},
    {"info registers", "", "general, control and segment registers", registers},
    {"info slots", "", "KVM's memory slots", slots},
    {"info tlb", "", "the page tables' top level", tlb},
    {"info trace", "[N]", "the last N exits of each CPU", trace},
    {"info version", "", "which monitor this is", version},
    {"irq", "NUMBER", "raises and lowers an interrupt line", interrupt_line},
    {"kaslr", "", "how far the kernel lies from its symbols", kaslr},
    {"log", "[N]", "the last N exits, interrupts and requests, in the order of time", log},
    {"lsmod", "", "a Linux guest's modules", linux_modules},
    {"nmi", "", "a non-maskable interrupt for the current CPU", nmi},
    {"ps", "", "a Linux guest's tasks", linux_tasks},
    {"record", "[on [STEPS]|off]",
     "for reverse-stepi and reverse-continue; a checkpoint every STEPS", record},
    {"rewind", "[NAME]", "back to a checkpoint, the newest one if none is named", rewind},
    {"snapshot", "[NAME]", "the same as checkpoint", checkpoint},
    {"xlate", "ADDRESS [CR3]", "how an address is translated, level by level", translate},
});

// A word too many would be left out, and with it what was asked for.
std::size_t most_arguments(const Command& command) { return split_words(command.arguments).size(); }

Answer help(const MonitorView&, const Words&) {
  std::string text;
  for (const Command& command : kCommands) {
    text += fmt::format("{:<32} {}\n", fmt::format("{} {}", command.name, command.arguments),
                        command.help);
  }
  return text;
}

}  // namespace

Result<std::string> run_monitor_command(const MonitorView& view, std::string_view command) {
  Words words = split_words(command);
  if (words.empty()) return help(view, {});
  std::string name(words[0]);
  words.erase(words.begin());
  if (name == "info" && !words.empty()) {
    name += fmt::format(" {}", words[0]);
    words.erase(words.begin());
  }
  const auto found = std::find_if(kCommands.begin(), kCommands.end(), [&](const Command& known) {
    return known.name == name && known.run != nullptr;
  });
  if (found == kCommands.end()) {
    return fmt::format("There is no command '{}'.\n{}", name, VMM_TRY(help(view, {})));
  }
  if (const std::size_t most = most_arguments(*found); words.size() > most) {
    return fail(ErrorCode::kBadConfig, "'{}' is a word too many: {}{}{}", words[most], found->name,
                found->arguments.empty() ? "" : " ", found->arguments);
  }
  return found->run(view, words);
}

}  // namespace vmm::debug
