#include "vmm/x86/format.h"

#include <fmt/format.h>

#include <array>
#include <iterator>
#include <string_view>

namespace vmm::x86 {
namespace {

struct Bit {
  std::uint64_t mask;
  std::string_view name;
};

// The names of the bits that are set, each after a space.
std::string bit_names(std::uint64_t value, std::span<const Bit> bits) {
  std::string text;
  for (const Bit& bit : bits) {
    if ((value & bit.mask) != 0) fmt::format_to(std::back_inserter(text), " {}", bit.name);
  }
  return text;
}

constexpr Bit kFlagNames[] = {
    {1U << 0, "CF"},  {1U << 2, "PF"},  {1U << 4, "AF"},  {1U << 6, "ZF"},  {1U << 7, "SF"},
    {1U << 8, "TF"},  {1U << 9, "IF"},  {1U << 10, "DF"}, {1U << 11, "OF"}, {3U << 12, "IOPL"},
    {1U << 14, "NT"}, {1U << 16, "RF"}, {1U << 17, "VM"}, {1U << 18, "AC"}, {1U << 21, "ID"}};
constexpr Bit kCr0Names[] = {{1U << 0, "PE"},  {1U << 1, "MP"},  {1U << 2, "EM"},  {1U << 3, "TS"},
                             {1U << 5, "NE"},  {1U << 16, "WP"}, {1U << 18, "AM"}, {1U << 29, "NW"},
                             {1U << 30, "CD"}, {1U << 31, "PG"}};
constexpr Bit kCr4Names[] = {
    {1U << 0, "VME"},       {1U << 2, "TSD"},         {1U << 3, "DE"},       {1U << 4, "PSE"},
    {1U << 5, "PAE"},       {1U << 6, "MCE"},         {1U << 7, "PGE"},      {1U << 8, "PCE"},
    {1U << 9, "OSFXSR"},    {1U << 10, "OSXMMEXCPT"}, {1U << 11, "UMIP"},    {1U << 12, "LA57"},
    {1U << 16, "FSGSBASE"}, {1U << 17, "PCIDE"},      {1U << 18, "OSXSAVE"}, {1U << 20, "SMEP"},
    {1U << 21, "SMAP"},     {1U << 22, "PKE"},        {1U << 23, "CET"}};
constexpr Bit kEferNames[] = {
    {1U << 0, "SCE"}, {1U << 8, "LME"}, {1U << 10, "LMA"}, {1U << 11, "NXE"}};
constexpr Bit kEntryNames[] = {{kEntryPresent, "P"},   {kEntryWritable, "W"}, {kEntryUser, "U"},
                               {kEntryAccessed, "A"},  {kEntryDirty, "D"},    {kEntryLarge, "PS"},
                               {kEntryNoExecute, "NX"}};

void put_segment(std::string& text, std::string_view name, const Segment& s) {
  fmt::format_to(std::back_inserter(text),
                 "{:<4} {:04x} base {:016x} limit {:08x} type {:x} DPL {}{}{}\n", name, s.selector,
                 s.base, s.limit, s.type, s.dpl,
                 s.long_mode ? " 64-bit" : (s.default_big ? " 32-bit" : " 16-bit"),
                 s.unusable ? " unusable" : "");
}

}  // namespace

std::string format_registers(const Registers& registers, const SystemRegisters& system) {
  static constexpr std::array<std::string_view, 16> kNames{"RAX", "RCX", "RDX", "RBX", "RSP", "RBP",
                                                           "RSI", "RDI", "R8",  "R9",  "R10", "R11",
                                                           "R12", "R13", "R14", "R15"};
  // In the order people know them by.
  static constexpr std::array<std::uint8_t, 16> kOrder{
      kRax, kRbx, kRcx, kRdx, kRsi, kRdi, kRbp, kRsp, kR8, kR9, kR10, kR11, kR12, kR13, kR14, kR15};
  std::string text;
  const auto out = std::back_inserter(text);
  for (std::size_t i = 0; i < kOrder.size(); ++i) {
    fmt::format_to(out, "{:<3} {:016x}{}", kNames[kOrder[i]], registers.gpr[kOrder[i]],
                   i % 4 == 3 ? "\n" : "  ");
  }
  fmt::format_to(out, "RIP {:016x}  RFLAGS {:08x}{}\n", registers.rip, registers.rflags,
                 bit_names(registers.rflags, kFlagNames));
  fmt::format_to(out, "CR0 {:08x}{}\n", system.cr0, bit_names(system.cr0, kCr0Names));
  fmt::format_to(out, "CR2 {:016x}  CR3 {:016x}  CR8 {:x}\n", system.cr2, system.cr3, system.cr8);
  fmt::format_to(out, "CR4 {:08x}{}\n", system.cr4, bit_names(system.cr4, kCr4Names));
  fmt::format_to(out, "EFER {:04x}{}\n", system.efer, bit_names(system.efer, kEferNames));
  put_segment(text, "CS", system.cs);
  put_segment(text, "SS", system.ss);
  put_segment(text, "DS", system.ds);
  put_segment(text, "ES", system.es);
  put_segment(text, "FS", system.fs);
  put_segment(text, "GS", system.gs);
  put_segment(text, "TR", system.tr);
  put_segment(text, "LDT", system.ldt);
  fmt::format_to(std::back_inserter(text), "GDT  base {:016x} limit {:04x}\n", system.gdt.base,
                 system.gdt.limit);
  fmt::format_to(std::back_inserter(text), "IDT  base {:016x} limit {:04x}\n", system.idt.base,
                 system.idt.limit);
  return text;
}

std::string format_walk(const PageWalk& walk, const GuestMemory& memory) {
  std::string text;
  const auto out = std::back_inserter(text);
  for (const PageWalkStep& step : walk.path()) {
    fmt::format_to(out, "  level {} entry at GPA {:#x}: {:016x}{}\n", step.level, step.entry.value,
                   step.value, bit_names(step.value, kEntryNames));
  }
  switch (walk.outcome) {
    case WalkOutcome::kMapped: {
      const auto range = GpaRange::create(walk.gpa, 1);
      fmt::format_to(out, "  GPA {:#x}, {}, page of {} KiB\n", walk.gpa.value,
                     range && memory.contains(*range) ? "RAM" : "not RAM", walk.page_size / 1024);
      break;
    }
    case WalkOutcome::kPageFault:
      fmt::format_to(out, "  page fault, error code {:#x}{}\n", walk.error_code,
                     walk.table_outside_ram ? ": the next table is not in RAM" : "");
      break;
    case WalkOutcome::kNonCanonical:
      fmt::format_to(out, "  not canonical\n");
      break;
  }
  return text;
}

}  // namespace vmm::x86
