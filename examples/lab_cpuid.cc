// The laboratory of virtualization: what a processor says of itself is the monitor's to decide.
// A guest asks CPUID, leaf by leaf; beside each answer is the one that this program gets, and the
// policy behind the difference.
//
//   examples/lab_cpuid
#include <cpuid.h>
#include <fmt/format.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <utility>

#include "vmm/vm.h"
#include "vmm_testing/guest_code.h"

namespace {

// Reads pairs of leaf and subleaf from 0x2000 on until leaf 0xffffffff, and leaves the four
// registers of each from 0x3000 on.
VMM_GUEST_CODE(kAsk, R"(
    mov $0x2000, %esi
    mov $0x3000, %edi
  .Lcpuid_next:
    mov (%rsi), %eax
    cmp $-1, %eax
    je .Lcpuid_done
    mov 4(%rsi), %ecx
    cpuid
    mov %eax, (%rdi)
    mov %ebx, 4(%rdi)
    mov %ecx, 8(%rdi)
    mov %edx, 12(%rdi)
    add $8, %esi
    add $16, %edi
    jmp .Lcpuid_next
  .Lcpuid_done:
    out %al, $0xf4
)");

struct Leaf {
  std::uint32_t leaf, subleaf;
  const char* policy;
};
constexpr std::array kLeaves{
    Leaf{0, 0, "the host's maker, and how many leaves there are"},
    Leaf{1, 0, "EBX: the APIC ID of this CPU; ECX bit 31: there is a monitor below"},
    Leaf{7, 0, "features, without those that --cpu or the configuration takes away"},
    Leaf{0xb, 0, "topology: of the guest's CPUs, not of the host's"},
    Leaf{0x4000'0000, 0, "the monitor's own range: who it is"},
    Leaf{0x4000'0001, 0, "what of KVM's paravirtual features the guest may use"},
    Leaf{0x8000'0001, 0, "long mode, NX, ..."},
};

using Registers = std::array<std::uint32_t, 4>;  // EAX, EBX, ECX, EDX

Registers own(const Leaf& leaf) {
  Registers r{};
  // A leaf that the processor does not have gives that of the highest one: shown as nothing.
  const auto most = static_cast<std::uint32_t>(__get_cpuid_max(leaf.leaf & 0x8000'0000, nullptr));
  if (most < leaf.leaf) return r;
  __cpuid_count(leaf.leaf, leaf.subleaf, r[0], r[1], r[2], r[3]);
  return r;
}

std::string line(const char* who, const Registers& r) {
  return fmt::format("    {:6} eax {:08x} ebx {:08x} ecx {:08x} edx {:08x}\n", who, r[0], r[1],
                     r[2], r[3]);
}

}  // namespace

int main() {
  vmm::VmConfig config;
  config.memory.size = vmm::MiB(2);
  config.irqchip = vmm::IrqchipMode::kNone;
  config.cpus.remove_features = {"rdseed"};
  config.boot = vmm::FlatBoot{.image = kAsk.image(), .address = vmm::Gpa(0x1000)};
  const auto created = vmm::Vm::create(std::move(config));
  if (!created) {
    std::fprintf(stderr, "lab_cpuid: %s\n", created.error().message().c_str());
    return created.error().code() == vmm::ErrorCode::kNoKvm ? 77 : 1;
  }
  vmm::Vm& vm = **created;
  const vmm::GuestMemory& memory = vm.memory();
  std::uint64_t at = 0x2000;
  for (const Leaf& leaf : kLeaves) {
    if (!memory.write(vmm::Gpa(at), leaf.leaf) || !memory.write(vmm::Gpa(at + 4), leaf.subleaf))
      return 1;
    at += 8;
  }
  if (!memory.write(vmm::Gpa(at), std::uint32_t{0xffff'ffff})) return 1;
  const auto stop = vm.run({.deadline = std::chrono::seconds(30)});
  if (!stop || stop->reason != vmm::StopReason::kDebugExit) return 1;

  at = 0x3000;
  std::array<Registers, kLeaves.size()> answers{};
  for (std::size_t i = 0; i < kLeaves.size(); ++i, at += 16) {
    answers[i] = memory.read<Registers>(vmm::Gpa(at)).value_or(Registers{});
    fmt::print("leaf {:#x}: {}\n{}{}", kLeaves[i].leaf, kLeaves[i].policy,
               line("host", own(kLeaves[i])), line("guest", answers[i]));
  }

  int mistakes = 0;
  const auto expect = [&mistakes](bool holds, const char* what) {
    if (holds) return;
    fmt::print("NOT SO: {}\n", what);
    ++mistakes;
  };
  expect(answers[0][1] == own(kLeaves[0])[1], "the maker is the host's");
  expect((answers[1][2] >> 31 & 1) != 0, "the guest knows that it has a monitor");
  expect(answers[1][1] >> 24 == 0, "CPU 0 has APIC ID 0");
  std::array<char, 12> name{};
  std::memcpy(name.data(), &answers[4][1], name.size());
  fmt::print("The monitor calls itself '{}'.\n",
             std::string(name.data(), strnlen(name.data(), name.size())));
  expect(name[0] != 0, "the monitor has a name");
  const bool hidden = (answers[2][1] >> 18 & 1) == 0;
  // A KVM without VT-x or AMD-V answers from the processor what is not on its list.
  fmt::print("RDSEED was taken away: the guest {}.\n",
             hidden ? "does not see it" : "sees it all the same, since this KVM cannot hide it");
  return mistakes == 0 ? 0 : 1;
}
