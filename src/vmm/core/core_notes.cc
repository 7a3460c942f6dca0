#include "vmm/core/core_notes.h"

#include <elf.h>
#include <sys/procfs.h>

#include <array>
#include <cstring>

#include "base/le.h"

namespace vmm {
namespace {

// user_regs_struct (sys/user.h), as PRSTATUS has it.
enum UserRegister : std::uint8_t {
  kR15,
  kR14,
  kR13,
  kR12,
  kRbp,
  kRbx,
  kR11,
  kR10,
  kR9,
  kR8,
  kRax,
  kRcx,
  kRdx,
  kRsi,
  kRdi,
  kOrigRax,
  kRip,
  kCs,
  kFlags,
  kRsp,
  kSs,
  kFsBase,
  kGsBase,
  kDs,
  kEs,
  kFs,
  kGs,
  kUserRegisters,
};
static_assert(sizeof(elf_gregset_t) == kUserRegisters * sizeof(std::uint64_t));
static_assert(sizeof(prstatus_t) == 336);

prstatus_t status_of(const CoreCpu& cpu, std::size_t number) {
  prstatus_t status{};
  status.pr_pid = static_cast<pid_t>(number + 1);
  const auto& gpr = cpu.registers.gpr;
  auto& to = status.pr_reg;
  to[kRax] = gpr[x86::kRax];
  to[kRbx] = gpr[x86::kRbx];
  to[kRcx] = gpr[x86::kRcx];
  to[kRdx] = gpr[x86::kRdx];
  to[kRsi] = gpr[x86::kRsi];
  to[kRdi] = gpr[x86::kRdi];
  to[kRbp] = gpr[x86::kRbp];
  to[kRsp] = gpr[x86::kRsp];
  to[kR8] = gpr[x86::kR8];
  to[kR9] = gpr[x86::kR9];
  to[kR10] = gpr[x86::kR10];
  to[kR11] = gpr[x86::kR11];
  to[kR12] = gpr[x86::kR12];
  to[kR13] = gpr[x86::kR13];
  to[kR14] = gpr[x86::kR14];
  to[kR15] = gpr[x86::kR15];
  to[kOrigRax] = ~0ULL;  // in no system call
  to[kRip] = cpu.registers.rip;
  to[kFlags] = cpu.registers.rflags;
  const x86::SystemRegisters& system = cpu.system;
  to[kCs] = system.cs.selector;
  to[kSs] = system.ss.selector;
  to[kDs] = system.ds.selector;
  to[kEs] = system.es.selector;
  to[kFs] = system.fs.selector;
  to[kGs] = system.gs.selector;
  to[kFsBase] = system.fs.base;
  to[kGsBase] = system.gs.base;
  return status;
}

struct QemuSegment {
  Le32 selector, limit, flags, pad;
  Le64 base;
};

// Version 1.
struct QemuCpuState {
  Le32 version, size;
  std::array<Le64, 16> gpr;  // rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8 to r15
  Le64 rip, rflags;
  QemuSegment cs, ds, es, fs, gs, ss, ldt, tr, gdt, idt;
  std::array<Le64, 5> cr;
  Le64 kernel_gs_base;
};
static_assert(sizeof(QemuCpuState) == 8 + 18 * 8 + 10 * 24 + 6 * 8);

// The bits of a descriptor's upper half (SDM volume 3, figure 3-8).
std::uint32_t flags_of(const x86::Segment& segment) {
  if (segment.unusable) return 0;
  return std::uint32_t{segment.type} << 8 | std::uint32_t{segment.code_or_data} << 12 |
         std::uint32_t{segment.dpl} << 13 | std::uint32_t{segment.present} << 15 |
         std::uint32_t{segment.available} << 20 | std::uint32_t{segment.long_mode} << 21 |
         std::uint32_t{segment.default_big} << 22 | std::uint32_t{segment.granularity} << 23;
}

QemuSegment qemu_segment(const x86::Segment& segment) {
  return {segment.selector, segment.limit, flags_of(segment), 0U, segment.base};
}

QemuSegment qemu_table(const x86::DescriptorTable& table) {
  return {0U, table.limit, 0U, 0U, table.base};
}

QemuCpuState qemu_state_of(const CoreCpu& cpu) {
  constexpr std::array<x86::Gpr, 16> kOrder{
      x86::kRax, x86::kRbx, x86::kRcx, x86::kRdx, x86::kRsi, x86::kRdi, x86::kRsp, x86::kRbp,
      x86::kR8,  x86::kR9,  x86::kR10, x86::kR11, x86::kR12, x86::kR13, x86::kR14, x86::kR15};
  QemuCpuState state;
  state.version = 1U;
  state.size = static_cast<std::uint32_t>(sizeof state);
  for (std::size_t i = 0; i < kOrder.size(); ++i) state.gpr[i] = cpu.registers.gpr[kOrder[i]];
  state.rip = cpu.registers.rip;
  state.rflags = cpu.registers.rflags;
  const x86::SystemRegisters& system = cpu.system;
  state.cs = qemu_segment(system.cs);
  state.ds = qemu_segment(system.ds);
  state.es = qemu_segment(system.es);
  state.fs = qemu_segment(system.fs);
  state.gs = qemu_segment(system.gs);
  state.ss = qemu_segment(system.ss);
  state.ldt = qemu_segment(system.ldt);
  state.tr = qemu_segment(system.tr);
  state.gdt = qemu_table(system.gdt);
  state.idt = qemu_table(system.idt);
  state.cr = {system.cr0, 0U, system.cr2, system.cr3, system.cr4};
  state.kernel_gs_base = cpu.kernel_gs_base;
  return state;
}

void append_padded(std::vector<std::byte>& notes, std::span<const std::byte> bytes) {
  notes.insert(notes.end(), bytes.begin(), bytes.end());
  notes.resize((notes.size() + 3) & ~std::size_t{3});
}

}  // namespace

void append_note(std::vector<std::byte>& notes, std::string_view owner, std::uint32_t type,
                 std::span<const std::byte> description) {
  const std::array<Le32, 3> header{static_cast<std::uint32_t>(owner.size() + 1),
                                   static_cast<std::uint32_t>(description.size()), type};
  append_padded(notes, std::as_bytes(std::span(header)));
  std::vector<std::byte> name(owner.size() + 1);
  std::memcpy(name.data(), owner.data(), owner.size());
  append_padded(notes, name);
  append_padded(notes, description);
}

std::vector<std::byte> cpu_notes(std::span<const CoreCpu> cpus) {
  std::vector<std::byte> notes;
  for (std::size_t i = 0; i < cpus.size(); ++i) {
    const prstatus_t status = status_of(cpus[i], i);
    append_note(notes, "CORE", NT_PRSTATUS, std::as_bytes(std::span(&status, 1)));
  }
  for (const CoreCpu& cpu : cpus) {
    const QemuCpuState state = qemu_state_of(cpu);
    append_note(notes, "QEMU", 0, std::as_bytes(std::span(&state, 1)));
  }
  return notes;
}

}  // namespace vmm
