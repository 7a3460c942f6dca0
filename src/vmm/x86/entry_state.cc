#include "vmm/x86/entry_state.h"

#include "vmm/x86/gdt.h"
#include "vmm/x86/layout.h"
#include "vmm/x86/page_tables.h"

namespace vmm::x86 {
namespace {

constexpr std::uint64_t kCr4Osxmmexcpt = 1U << 10;
constexpr std::uint64_t kRealModeLimit = 0x10000;
constexpr std::uint64_t kStackAlignment = 16;

void use_segments(SystemRegisters& system, const GdtSegments& segments) {
  system.gdt = segments.gdt;
  system.cs = segments.code;
  system.ds = system.es = system.fs = system.gs = system.ss = segments.data;
  system.tr = segments.tss;
}

// What every entry has in common.
EntryState blank() {
  EntryState state;
  state.system.ldt = no_ldt();
  state.system.idt = {0, 0};
  state.system.apic_base = kApicBaseReset;
  return state;
}

Result<EntryState> protected_mode(const GuestMemory& memory, GdtKind kind, Gpa entry,
                                  std::uint64_t stack) {
  if (entry >= kHighRamBase) {
    return fail(ErrorCode::kBadConfig, "Enter 32-bit code at GPA {}: it must be below 4 GiB",
                entry);
  }
  EntryState state = blank();
  use_segments(state.system, VMM_TRY(write_gdt(memory, kind, stack)));
  state.system.cr0 = kCr0Pe | kCr0Et;
  state.registers.rip = entry.value;
  state.registers.gpr[kRsp] = stack;
  return state;
}

Result<EntryState> long_mode(const GuestMemory& memory, GdtKind kind, PageAccess access, Gpa entry,
                             std::uint64_t stack) {
  EntryState state = blank();
  use_segments(state.system, VMM_TRY(write_gdt(memory, kind, stack)));
  state.system.cr3 = VMM_TRY(write_identity_map(memory, access));
  state.system.cr0 = kCr0Pe | kCr0Mp | kCr0Et | kCr0Ne | kCr0Pg;
  state.system.cr4 = kCr4Pae;
  state.system.efer = kEferLme | kEferLma;
  state.registers.rip = entry.value;
  state.registers.gpr[kRsp] = stack;
  return state;
}

Result<std::uint64_t> pointer32(Gpa address, const char* what) {
  if (address < kHighRamBase) return address.value;
  return fail(ErrorCode::kBadConfig, "{} at GPA {}: 32-bit code cannot reach it", what, address);
}

// The top of the stack of a flat image: below the image when there is a page, so that small guests
// need no stack of their own.
std::uint64_t stack_below(Gpa image) {
  if (image.value < kPageSize) return kBootStack.end().value;
  return align_down(image.value, kStackAlignment);
}

// Tables written over an image would end in a guest that fails for no visible reason. The identity
// map and 32-bit code reach 4 GiB.
Result<void> check_flat_image(const GpaRange& image) {
  if (image.overlaps(kBootArea)) {
    return fail(ErrorCode::kBadConfig,
                "A flat image at {}: GDT, page tables and stack of its mode lie in {}", image,
                kBootArea);
  }
  if (image.base() >= kHighRamBase) {
    return fail(ErrorCode::kBadConfig, "A flat image at {}: it must start below 4 GiB", image);
  }
  return {};
}

}  // namespace

Result<EntryState> enter_linux64(const GuestMemory& memory, Gpa entry, Gpa zero_page) {
  EntryState state = VMM_TRY(
      long_mode(memory, GdtKind::kLinux64, PageAccess::kSupervisor, entry, kBootStack.end().value));
  state.registers.gpr[kRsi] = zero_page.value;
  return state;
}

Result<EntryState> enter_linux32(const GuestMemory& memory, Gpa entry, Gpa zero_page) {
  EntryState state =
      VMM_TRY(protected_mode(memory, GdtKind::kLinux32, entry, kBootStack.end().value));
  state.registers.gpr[kRsi] = VMM_TRY(pointer32(zero_page, "Zero page"));
  return state;
}

Result<EntryState> enter_pvh(const GuestMemory& memory, Gpa entry, Gpa start_info) {
  EntryState state =
      VMM_TRY(protected_mode(memory, GdtKind::kFlat32, entry, kBootStack.end().value));
  state.registers.gpr[kRbx] = VMM_TRY(pointer32(start_info, "PVH start info"));
  return state;
}

Result<EntryState> enter_multiboot(const GuestMemory& memory, Gpa entry, std::uint32_t magic,
                                   Gpa info) {
  EntryState state =
      VMM_TRY(protected_mode(memory, GdtKind::kFlat32, entry, kBootStack.end().value));
  state.registers.gpr[kRax] = magic;
  state.registers.gpr[kRbx] = VMM_TRY(pointer32(info, "Multiboot information"));
  return state;
}

Result<EntryState> enter_flat_real(Gpa address) {
  if (address.value >= MiB(1) || (address.value >= kRealModeLimit && address.value % 16 != 0)) {
    return fail(ErrorCode::kBadConfig,
                "Enter real mode at GPA {}: it must be below 1 MiB, and from 64 KiB on a multiple "
                "of 16",
                address);
  }
  const bool near_zero = address.value < kRealModeLimit;
  const auto code = static_cast<std::uint16_t>(near_zero ? 0 : address.value >> 4);
  // A page below an image that has a segment of its own.
  const auto stack = static_cast<std::uint16_t>(near_zero ? 0 : code - kPageSize / 16);
  const std::uint64_t top = near_zero ? align_down(address.value, kStackAlignment) : kPageSize;

  EntryState state = blank();
  SystemRegisters& system = state.system;
  system.cs = real_code(code);
  system.ds = system.es = system.fs = system.gs = real_data(code);
  system.ss = real_data(stack);
  system.tr = busy_tss(0, 0, 0xffff);
  system.gdt = {0, 0xffff};
  system.idt = {0, 0x3ff};  // the interrupt vector table
  system.cr0 = kCr0Et;
  state.registers.rip = near_zero ? address.value : 0;
  state.registers.gpr[kRsp] = top;
  return state;
}

Result<EntryState> enter_flat_protected(const GuestMemory& memory, const GpaRange& image) {
  VMM_TRY(check_flat_image(image));
  return protected_mode(memory, GdtKind::kFlat32, image.base(), stack_below(image.base()));
}

Result<EntryState> enter_flat_long(const GuestMemory& memory, const GpaRange& image) {
  VMM_TRY(check_flat_image(image));
  EntryState state = VMM_TRY(long_mode(memory, GdtKind::kFlat64, PageAccess::kEverybody,
                                       image.base(), stack_below(image.base())));
  state.system.cr4 |= kCr4Osfxsr | kCr4Osxmmexcpt;
  return state;
}

EntryState after_init(const SystemRegisters& before) {
  constexpr std::uint64_t kCr0Nw = 1U << 29, kCr0Cd = 1U << 30;
  EntryState state;
  SystemRegisters& system = state.system;
  system.cs = real_code(0xf000);
  system.cs.base = 0xffff'0000;
  system.ds = system.es = system.fs = system.gs = system.ss = real_data(0);
  system.tr = busy_tss(0, 0, 0xffff);
  system.ldt = no_ldt();
  system.gdt = system.idt = {0, 0xffff};
  system.cr0 = kCr0Et | (before.cr0 & (kCr0Nw | kCr0Cd));
  system.apic_base = before.apic_base;
  state.registers.rip = 0xfff0;
  return state;
}

void start_up_at(EntryState& state, std::uint8_t vector) {
  state.system.cs = real_code(static_cast<std::uint16_t>(vector << 8));
  state.registers.rip = 0;
}

}  // namespace vmm::x86
