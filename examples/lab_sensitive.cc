// The laboratory of virtualization: instructions that look at or change the state of the machine,
// executed at CPL 3, where the first monitors for x86 put the kernels of their guests (ring
// compression). Those that fault can be trapped and emulated. Those that do not, and give an answer
// all the same, are why x86 could not be virtualized that way, and needed VT-x or AMD-V: the
// 17 instructions of Robin and Irvine, "Analysis of the Intel Pentium's Ability to Support a Secure
// Virtual Machine Monitor" (USENIX Security 2000).
//
//   examples/lab_sensitive
#include <fmt/format.h>

#include <cstdio>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "vmm/vm.h"
#include "vmm_testing/guest_code.h"

namespace {

constexpr std::uint64_t kMarker = 0xd000'0000;
constexpr std::uint64_t kNoAnswer = 0xfeed;  // what LAR and LSL leave as it was

// Goes to CPL 3 with I/O privilege level 0, does what the text says, and writes to an address that
// no memory slot has: there the program looks. There are no gates: a fault ends the guest. `cs` and
// `bits` say what the text is: 0x1b for 64-bit code, 0x2b for 32-bit code, which uses DS.
#define LAB_CODE_AT_CPL_3(name, cs, bits, text)                          \
  VMM_GUEST_CODE(name,                                                   \
                 "lgdt 4f(%rip)\n mov $0x23, %eax\n mov %eax, %ds\n"     \
                 "pushq $0x23\n pushq $0x70000\n pushq $2\n pushq $" #cs \
                 "\n lea 1f(%rip), %rax\n push %rax\n iretq\n"           \
                 ".code" #bits "\n 1:\n" text                            \
                 "\n mov $0xd0000000, %esi\n mov %eax, (%esi)\n"         \
                 "2: jmp 2b\n"                                           \
                 ".balign 8\n"                                           \
                 "3: .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff\n"  \
                 ".quad 0x00affb000000ffff, 0x00cff3000000ffff\n"        \
                 ".quad 0x00cffb000000ffff\n"                            \
                 "4: .word 47\n .quad 0x1000 + 3b - vmm_guest_code_begin_" #name)
#define LAB_USER_CODE(name, text) LAB_CODE_AT_CPL_3(name, 0x1b, 64, text)

LAB_USER_CODE(kMovCs, "mov %cs, %eax");
LAB_CODE_AT_CPL_3(kPushCs, 0x2b, 32, "push %cs\n pop %eax");
LAB_USER_CODE(kSmsw, "smsw %eax");
LAB_USER_CODE(kPopf, "pushf\n orq $0x200, (%rsp)\n popf\n pushf\n pop %rax");
LAB_USER_CODE(kPushf, "pushf\n pop %rax");
LAB_USER_CODE(kSgdt, "sgdt 0x2000\n mov 0x2002, %rax");
LAB_USER_CODE(kSidt, "sidt 0x2000\n mov 0x2002, %rax");
LAB_USER_CODE(kSldt, "sldt %eax");
LAB_USER_CODE(kStr, "str %eax");
LAB_USER_CODE(kLarKernel, "mov $0xfeed, %eax\n mov $0x08, %ecx\n lar %ecx, %eax");
LAB_USER_CODE(kLarUser, "mov $0xfeed, %eax\n mov $0x18, %ecx\n lar %ecx, %eax");
LAB_USER_CODE(kLslKernel, "mov $0xfeed, %eax\n mov $0x08, %ecx\n lsl %ecx, %eax");
LAB_USER_CODE(kVerrKernel, "xor %eax, %eax\n mov $0x08, %ecx\n verr %cx\n setz %al");
LAB_USER_CODE(kVerwKernel, "xor %eax, %eax\n mov $0x10, %ecx\n verw %cx\n setz %al");
LAB_USER_CODE(kVerwUser, "xor %eax, %eax\n mov $0x20, %ecx\n verw %cx\n setz %al");
LAB_USER_CODE(kCli, "cli");
LAB_USER_CODE(kMovCr3, "mov %cr3, %rax");
LAB_USER_CODE(kHlt, "hlt");
LAB_USER_CODE(kIn, "in $0x80, %al");

// What the guest had in RAX, and the machine that it was in.
struct Seen {
  std::uint64_t rax = 0;
  vmm::x86::SystemRegisters system = {};
};

struct Experiment {
  const char* instruction;
  const vmm::testing::GuestCode& code;
  bool faults;  // by the manual: privileged
  std::function<std::string(const Seen&)> meaning = {};
  // What the manual promises of the answer, where it promises something.
  std::function<bool(const Seen&)> holds = {};
};

std::string compared(std::uint64_t answer, std::uint64_t own) {
  return answer == own ? fmt::format("{:#x}, the guest's own", answer)
                       : fmt::format("{:#x}; the guest's own is {:#x}", answer, own);
}

std::string code_segment(const Seen& seen) {
  return compared(seen.rax, seen.system.cs.selector) +
         "; the last two bits tell a kernel that it is none (ring aliasing)";
}
bool is_of_ring_3(const Seen& seen) { return (seen.rax & 3) == 3; }

// The guest has come to CPL 3 with IF = 0.
std::string if_in_flags(const Seen& seen) {
  return (seen.rax & vmm::x86::kFlagIf) == 0 ? "IF is 0, the guest's own"
                                             : "IF is 1; the guest's own is 0";
}

std::string if_after_popf(const Seen& seen) {
  return (seen.rax & 0x200) == 0
             ? "IF stays 0: ignored, without a word to anybody"
             : "IF is 1, and was before: the processor's, not the guest's, shows through";
}

std::string rights(const Seen& seen) {
  return seen.rax == kNoAnswer
             ? "no answer: the processor looks into another table than the guest's"
             : fmt::format("rights {:#x}, with the DPL that they have now", seen.rax);
}

std::string may_be_written(const Seen& seen) {
  return seen.rax == 0 ? "ZF is 0: the processor looks into another table than the guest's"
                       : "ZF is 1: it may be written";
}

// What a descriptor says that is more privileged than who asks.
std::string no_answer(const Seen&) { return "no answer, as if it were not there"; }
bool has_no_answer(const Seen& seen) { return seen.rax == kNoAnswer; }
bool has_zf_clear(const Seen& seen) { return seen.rax == 0; }

std::vector<Experiment> experiments() {
  return {
      {"MOV from CS", kMovCs, false, code_segment, is_of_ring_3},
      {"PUSH CS", kPushCs, false, code_segment, is_of_ring_3},
      {"PUSHF", kPushf, false, if_in_flags},
      {"POPF with IF", kPopf, false, if_after_popf},
      {"SMSW", kSmsw, false,
       [](const Seen& s) { return compared(s.rax & 0xffff, s.system.cr0 & 0xffff); }},
      {"SGDT", kSgdt, false, [](const Seen& s) { return compared(s.rax, s.system.gdt.base); }},
      {"SIDT", kSidt, false, [](const Seen& s) { return compared(s.rax, s.system.idt.base); }},
      {"SLDT", kSldt, false,
       [](const Seen& s) { return compared(s.rax & 0xffff, s.system.ldt.selector); }},
      {"STR", kStr, false,
       [](const Seen& s) { return compared(s.rax & 0xffff, s.system.tr.selector); }},
      {"LAR of DPL 0", kLarKernel, false, no_answer, has_no_answer},
      {"LAR of DPL 3", kLarUser, false, rights},
      {"LSL of DPL 0", kLslKernel, false, no_answer, has_no_answer},
      {"VERR of DPL 0", kVerrKernel, false, no_answer, has_zf_clear},
      {"VERW of DPL 0", kVerwKernel, false, no_answer, has_zf_clear},
      {"VERW of DPL 3", kVerwUser, false, may_be_written},
      {"CLI", kCli, true},
      {"MOV from CR3", kMovCr3, true},
      {"HLT", kHlt, true},
      {"IN", kIn, true},
  };
}

}  // namespace

int main() {
  int mistakes = 0;
  fmt::print("{:14} {:12} {}\n", "at CPL 3", "", "answer");
  for (const Experiment& experiment : experiments()) {
    vmm::VmConfig config;
    config.memory.size = vmm::MiB(2);
    config.irqchip = vmm::IrqchipMode::kNone;
    config.boot = vmm::FlatBoot{.image = experiment.code.image(), .address = vmm::Gpa(0x1000)};
    const auto vm = vmm::Vm::create(std::move(config));
    if (!vm) {
      std::fprintf(stderr, "lab_sensitive: %s\n", vm.error().message().c_str());
      return vm.error().code() == vmm::ErrorCode::kNoKvm ? 77 : 1;
    }
    const auto end = (*vm)->run_until({vmm::UntilExit{.kind = "mmio", .address = kMarker}},
                                      std::chrono::seconds(30));
    if (!end) {
      std::fprintf(stderr, "lab_sensitive: %s\n", end.error().message().c_str());
      return 1;
    }
    const bool executed = static_cast<bool>(*end);
    std::string text = executed ? "" : fmt::format("({})", vmm::to_string(end->stop.reason));
    bool right = executed != experiment.faults;
    if (executed) {
      const auto registers = (*vm)->registers(vmm::VcpuId{0});
      const auto system = (*vm)->system_registers(vmm::VcpuId{0});
      if (!registers || !system) return 1;
      const Seen seen{registers->gpr[vmm::x86::kRax], *system};
      if (experiment.meaning) text = experiment.meaning(seen);
      right = right && (!experiment.holds || experiment.holds(seen));
    }
    fmt::print("{:14} {:12} {}\n", experiment.instruction, executed ? "no fault" : "fault", text);
    if (!right) {
      fmt::print("NOT SO: the manual says otherwise\n");
      ++mistakes;
    }
  }
  return mistakes == 0 ? 0 : 1;
}
