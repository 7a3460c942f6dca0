// The laboratory of virtualization: which instructions leave the guest. Each is executed sixteen
// times between two markers, and the exits that came to this program in between are counted.
//
// What is not in the table may still have left the guest: KVM itself handles many exits (CPUID,
// most MSRs, page tables), and tells nobody. What comes here is what somebody outside of the kernel
// has to decide.
//
//   examples/lab_exits
#include <fmt/format.h>

#include <cstdio>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "vmm/vm.h"
#include "vmm_testing/guest_code.h"

namespace {

constexpr std::uint64_t kTimes = 16;

// A marker, the text sixteen times, a marker.
#define LAB_CODE(name, text)                                                      \
  VMM_GUEST_CODE(name, "mov $0xd0000000, %ebx\n out %al, $0x80\n .rept 16\n" text \
                       "\n .endr\n out %al, $0x80\n hlt")

LAB_CODE(kNop, "nop");
LAB_CODE(kAdd, "add $1, %rax");
LAB_CODE(kRdtsc, "rdtsc");
LAB_CODE(kCpuid, "push %rbx\n xor %eax, %eax\n cpuid\n pop %rbx");
LAB_CODE(kLoadCr3, "mov %cr3, %rax\n mov %rax, %cr3");
LAB_CODE(kInvlpg, "invlpg 0x2000");
LAB_CODE(kPageTable, "mov %cr3, %rax\n mov (%rax), %rcx\n mov %rcx, (%rax)");
LAB_CODE(kWrmsr, "mov $0xc0000082, %ecx\n xor %eax, %eax\n xor %edx, %edx\n wrmsr");
LAB_CODE(kMaskInterrupts, "cli");
LAB_CODE(kOut, "out %al, $0x81");
LAB_CODE(kIn, "in $0x81, %al");
LAB_CODE(kOutString, "mov $0x2000, %esi\n mov $4, %ecx\n mov $0x81, %edx\n rep outsb");
LAB_CODE(kLoad, "mov 0x2000, %eax");
LAB_CODE(kMmioRead, "mov (%rbx), %eax");
LAB_CODE(kMmioWrite, "mov %eax, (%rbx)");

struct Experiment {
  const char* instruction;
  const vmm::testing::GuestCode& code;
  const char* why;
  std::optional<std::uint64_t> expected;  // exits for each; nothing: the host's affair
};

const std::vector<Experiment>& experiments() {
  static const std::vector<Experiment> all{
      {"NOP", kNop, "nothing privileged: the processor executes it", 0},
      {"ADD", kAdd, "the same", 0},
      {"MOV from RAM", kLoad, "a memory slot has it", 0},
      {"CLI", kMaskInterrupts, "the guest's own flag; interrupts of the host are not masked", 0},
      {"RDTSC", kRdtsc, "the counter is shifted by hardware, or by KVM", 0},
      {"CPUID", kCpuid, "KVM answers from the list that it was given", 0},
      {"MOV CR3", kLoadCr3, "the guest's own with EPT or NPT, else KVM's shadow", 0},
      {"INVLPG", kInvlpg, "the same", 0},
      {"write to a page table", kPageTable, "the same", 0},
      {"WRMSR (LSTAR)", kWrmsr, "KVM knows this register", {}},
      {"OUT", kOut, "a port: only the monitor knows what is there", 1},
      {"IN", kIn, "the same, and the guest waits for the answer", 1},
      {"REP OUTSB, 4 bytes", kOutString, "at most one exit for each byte", {}},
      {"MOV from nowhere", kMmioRead, "no memory slot has it: a device, or nothing", 1},
      {"MOV to nowhere", kMmioWrite, "the same", 1},
  };
  return all;
}

// Exits by kind between the two markers; nothing when the guest did not come there.
std::optional<std::map<std::string, std::uint64_t>> exits_of(vmm::Vm& vm) {
  const std::vector<vmm::Condition> marker{vmm::UntilExit{.kind = "pio", .address = 0x80}};
  const auto first = vm.run_until(marker, std::chrono::seconds(30));
  const auto before = vm.stats().exits;
  const auto second = vm.run_until(marker, std::chrono::seconds(30));
  if (!first || !*first || !second || !*second) return std::nullopt;
  std::map<std::string, std::uint64_t> exits;
  for (const auto& [kind, count] : vm.stats().exits) {
    const auto then = before.find(kind);
    std::uint64_t more = count - (then == before.end() ? 0 : then->second);
    if (kind == "pio") --more;            // the marker itself
    if (kind == "interrupted") continue;  // the host's own affairs
    if (more != 0) exits[kind] = more;
  }
  return exits;
}

}  // namespace

int main() {
  int mistakes = 0;
  fmt::print("{:24} {:>10}  {}\n", "16 times", "exits here", "why");
  for (const Experiment& experiment : experiments()) {
    vmm::VmConfig config;
    config.memory.size = vmm::MiB(2);
    config.irqchip = vmm::IrqchipMode::kNone;
    config.boot = vmm::FlatBoot{.image = experiment.code.image(), .address = vmm::Gpa(0x1000)};
    const auto vm = vmm::Vm::create(std::move(config));
    if (!vm) {
      std::fprintf(stderr, "lab_exits: %s\n", vm.error().message().c_str());
      return vm.error().code() == vmm::ErrorCode::kNoKvm ? 77 : 1;
    }
    const auto exits = exits_of(**vm);
    if (!exits) {
      fmt::print("{:24} {:>10}  NOT SO: the guest did not come to its end\n",
                 experiment.instruction, "-");
      ++mistakes;
      continue;
    }
    std::uint64_t sum = 0;
    std::string kinds;
    for (const auto& [kind, count] : *exits) {
      sum += count;
      kinds += fmt::format("{}{}", kinds.empty() ? " (" : ", ", kind);
    }
    fmt::print("{:24} {:>10}  {}{}\n", experiment.instruction, sum, experiment.why,
               kinds.empty() ? "" : kinds + ")");
    if (experiment.expected && sum != *experiment.expected * kTimes) {
      fmt::print("NOT SO: {} exits were expected\n", *experiment.expected * kTimes);
      ++mistakes;
    }
  }
  return mistakes == 0 ? 0 : 1;
}
