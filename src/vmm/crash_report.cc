#include "vmm/crash_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "base/le.h"
#include "vmm/disassemble.h"
#include "vmm/stack_walk.h"
#include "vmm/trace/exit_text.h"
#include "vmm/x86/format.h"
#include "vmm/x86/paging_context.h"

namespace vmm {
namespace {

constexpr std::uint64_t kBefore = 48;  // bytes of code that are decoded before RIP
constexpr std::size_t kLinesBefore = 5;
constexpr std::size_t kLinesAfter = 5;
constexpr std::size_t kMostFrames = 32;
constexpr std::size_t kStackWords = 512;
constexpr std::size_t kMostGuesses = 16;

// With no regard to privileges: the report may see everything.
PagingContext all_seeing(const CrashedCpu& cpu) {
  return x86::privileged_context(cpu.system, cpu.registers.rflags);
}

std::uint64_t linear(const CrashedCpu& cpu, const x86::Segment& segment, std::uint64_t offset) {
  // Outside of 64-bit mode code is at an offset into its segment.
  return cpu.system.code_is_64bit() ? offset : (segment.base + offset) & 0xffff'ffff;
}

// As many bytes as can be read from there on.
std::vector<std::byte> read_code(const GuestMemory& memory, const PagingContext& context,
                                 std::uint64_t address, std::size_t most) {
  std::vector<std::byte> code(most);
  while (!code.empty() && !read_virtual(memory, context, Gva(address), code)) {
    // It may end at the page's end.
    const std::uint64_t to_page_end = 4096 - address % 4096;
    code.resize(code.size() > to_page_end ? static_cast<std::size_t>(to_page_end) : 0);
  }
  return code;
}

// Instructions that follow each other up to the end of the code exactly; empty when they do not
// meet it.
std::vector<CodeLine> decode_up_to(std::span<const std::byte> code, std::uint64_t address,
                                   const x86::SystemRegisters& system) {
  std::vector<CodeLine> lines =
      disassemble(code, address, system).value_or(std::vector<CodeLine>());
  const bool meets =
      !lines.empty() && lines.back().address + lines.back().length == address + code.size();
  return meets ? lines : std::vector<CodeLine>();
}

// x86 code cannot be read backwards: the first place from which decoding meets RIP is most likely
// right.
std::vector<CodeLine> lines_before(const GuestMemory& memory, const PagingContext& context,
                                   std::uint64_t pc, const x86::SystemRegisters& system) {
  auto size = static_cast<std::size_t>(std::min(kBefore, pc));
  std::vector<std::byte> code = read_code(memory, context, pc - size, size);
  if (code.size() != size) {  // then what is in the same page
    size = std::min(size, static_cast<std::size_t>(pc % 4096));
    code = read_code(memory, context, pc - size, size);
  }
  for (std::size_t back = code.size(); back > 0; --back) {
    const auto from = std::span<const std::byte>(code).last(back);
    // Zeroes are memory that nobody has written, though they decode.
    if (from.front() == std::byte{0}) continue;
    std::vector<CodeLine> lines = decode_up_to(from, pc - back, system);
    if (lines.empty()) continue;
    if (lines.size() > kLinesBefore) lines.erase(lines.begin(), lines.end() - kLinesBefore);
    return lines;
  }
  return {};
}

std::string code_text(const GuestMemory& memory, const CrashedCpu& cpu, const KernelNames& names) {
  const PagingContext context = all_seeing(cpu);
  const std::uint64_t pc = linear(cpu, cpu.system.cs, cpu.registers.rip);
  const auto code = read_code(memory, context, pc, kLinesAfter * 15);
  if (code.empty()) return fmt::format("code: nothing can be read at {:#x}\n", pc);
  std::string text = fmt::format("code{}:\n", names.of(pc));
  for (const CodeLine& line : lines_before(memory, context, pc, cpu.system)) {
    text += fmt::format("     {:#x}: {}\n", line.address, line.text);
  }
  const auto lines = disassemble(code, pc, cpu.system, kLinesAfter);
  std::uint64_t end = pc;
  for (const CodeLine& line : lines.value_or(std::vector<CodeLine>())) {
    text += fmt::format("{} {:#x}: {}\n", line.address == pc ? "  =>" : "    ", line.address,
                        line.text);
    end = line.address + line.length;
  }
  if (lines && (lines->size() == kLinesAfter || end - pc == code.size())) return text;
  return text + fmt::format("{} {:#x}: {} ({:02x}...)\n", end == pc ? "  =>" : "    ", end,
                            lines ? "no instruction" : "libZydis is missing", code[end - pc]);
}

// By saved frame pointers, which a kernel may not have.
std::string frames_text(const GuestMemory& memory, const CrashedCpu& cpu,
                        const KernelNames& names) {
  std::string text;
  for (const std::uint64_t caller : callers_of(memory, cpu.registers, cpu.system, kMostFrames)) {
    text += fmt::format("  {:#x}{}\n", caller, names.of(caller));
  }
  return text.empty() ? text : "called from, by frame pointers:\n" + text;
}

// What looks like a return address: more than there were calls, but no call is missing.
std::string guesses_text(const GuestMemory& memory, const CrashedCpu& cpu,
                         const KernelNames& names) {
  if (names.symbols == nullptr) return {};
  const PagingContext context = all_seeing(cpu);
  std::string text;
  std::size_t lines = 0;
  const std::uint64_t stack = cpu.registers.gpr[x86::kRsp] & ~std::uint64_t{7};
  for (std::size_t i = 0; i < kStackWords && lines < kMostGuesses; ++i) {
    Le64 word;
    if (!read_virtual(memory, context, Gva(stack + 8 * i),
                      std::as_writable_bytes(std::span(&word, 1)))) {
      break;
    }
    const std::string name = names.of(word);
    if (name.empty()) continue;
    text += fmt::format("  {:#x}: {:#x}{}\n", stack + 8 * i, std::uint64_t{word}, name);
    ++lines;
  }
  return text.empty() ? text : "addresses of the kernel's code on the stack:\n" + text;
}

std::string walk_text(const GuestMemory& memory, const CrashedCpu& cpu, std::string_view what,
                      std::uint64_t address, AccessKind access) {
  const PagingContext context = x86::paging_context(cpu.system, cpu.registers.rflags);
  return fmt::format("{} {:#x}:\n{}", what, address,
                     x86::format_walk(walk_pages(memory, context, Gva(address), access), memory));
}

}  // namespace

std::string KernelNames::of(std::uint64_t address) const {
  if (symbols == nullptr) return {};
  const std::uint64_t linked = address - offset;
  const auto begin = symbols->find("_stext");
  const auto end = symbols->find("_etext");
  // Without these two the symbols are no kernel's; then any name is better than none.
  if (begin && end && (linked < *begin || linked >= *end)) return {};
  const std::string name = symbols->name_of(linked);
  return name.empty() ? name : fmt::format(" <{}>", name);
}

std::string cpu_text(const GuestMemory& memory, VcpuId id, const CrashedCpu& cpu,
                     const KernelNames& names) {
  return fmt::format("vCPU {}\n{}{}", static_cast<std::uint32_t>(id),
                     x86::format_registers(cpu.registers, cpu.system),
                     code_text(memory, cpu, names));
}

std::string crash_state(const GuestMemory& memory, VcpuId id, const CrashedCpu& cpu) {
  const std::uint64_t pc = linear(cpu, cpu.system.cs, cpu.registers.rip);
  return fmt::format("vCPU {}\n{}{}", static_cast<std::uint32_t>(id),
                     x86::format_registers(cpu.registers, cpu.system),
                     walk_text(memory, cpu, "rip", pc, AccessKind::kFetch));
}

std::string crash_details(const GuestMemory& memory, const CrashedCpu& cpu,
                          const KernelNames& names) {
  std::string text = code_text(memory, cpu, names);
  const std::uint64_t stack = linear(cpu, cpu.system.ss, cpu.registers.gpr[x86::kRsp]);
  text += walk_text(memory, cpu, "rsp", stack, AccessKind::kWrite);
  if (cpu.system.cr2 != 0) text += walk_text(memory, cpu, "cr2", cpu.system.cr2, AccessKind::kRead);
  if (cpu.system.code_is_64bit()) {
    text += frames_text(memory, cpu, names);
    text += guesses_text(memory, cpu, names);
  }
  return text;
}

std::string last_exits_text(const Machine& machine, std::size_t most, const KernelNames& names) {
  std::string text;
  for (std::size_t cpu = 0; cpu < machine.exit_rings.size(); ++cpu) {
    const std::vector<ExitRecord> records = machine.exit_rings[cpu]->last(most);
    if (records.empty()) continue;
    text += fmt::format("last exits of vCPU {}, the newest last:\n", cpu);
    for (const ExitRecord& record : records) {
      text += fmt::format("  {:>10.6f} s {}{}\n",
                          static_cast<double>(record.time - records.back().time) / 1e9,
                          exit_text(record), record.rip != 0 ? names.of(record.rip) : "");
    }
  }
  return text;
}

}  // namespace vmm
