// The laboratory of virtualization: an address on its way. A guest builds page tables, reads and
// writes through them, and changes them; the program walks them at each step, as the processor
// does, down to the page and to the place in its own memory where that page really is.
//
//   examples/lab_translation
#include <fmt/format.h>

#include <cstdio>
#include <string>
#include <utility>

#include "vmm/vm.h"
#include "vmm_testing/guest_code.h"

namespace {

// Each "out" to port 0x80 is a place where the program looks.
VMM_GUEST_CODE(kGuest, R"(
    out %al, $0x80              # 1: nothing is there yet
    mov %cr3, %rdi
    movq $0x11003, 8(%rdi)      # level 4, entry 1: present, writable
    movq $0x12003, 0x11000      # level 3
    movq $0x13003, 0x12000      # level 2
    movq $0x14003, 0x13000      # level 1: the page at 0x14000
    out %al, $0x80              # 2: mapped
    movabs $0x8000000000, %rsi
    mov (%rsi), %eax
    out %al, $0x80              # 3: read
    movl $7, (%rsi)
    out %al, $0x80              # 4: written
    movl $8, 0x15000
    movq $0x15003, 0x13000      # now another page
    mov (%rsi), %ebx            # what the TLB remembers, or not
    invlpg (%rsi)
    mov (%rsi), %ecx            # what the tables say
    out %al, $0x80              # 5: moved
    hlt
)");

constexpr vmm::VcpuId kCpu{0};
constexpr vmm::Gva kAddress(0x80'0000'0000);

int mistakes = 0;

void expect(bool holds, const char* what) {
  if (holds) return;
  std::printf("NOT SO: %s\n", what);
  ++mistakes;
}

std::string bits(std::uint64_t entry) {
  if ((entry & vmm::kEntryPresent) == 0) return "not present";
  return fmt::format("{}{}{}", (entry & vmm::kEntryWritable) != 0 ? "writable" : "read-only",
                     (entry & vmm::kEntryAccessed) != 0 ? ", accessed" : "",
                     (entry & vmm::kEntryDirty) != 0 ? ", dirty" : "");
}

// Where a page of the guest's is in this process.
std::string host_address(const vmm::Vm& vm, vmm::Gpa gpa) {
  for (const vmm::GuestRegion& region : vm.memory().regions()) {
    if (!region.range().contains(gpa)) continue;
    return fmt::format("HVA {}", static_cast<const void*>(
                                     region.hva() + (gpa.value - region.range().base().value)));
  }
  return "no RAM";
}

vmm::PageWalk show(const vmm::Vm& vm, const char* title) {
  const auto walk = vm.walk(kCpu, kAddress);
  if (!walk) {
    std::printf("%s\n", walk.error().message().c_str());
    ++mistakes;
    return {};
  }
  fmt::print("\n{}\n  GVA {:#x}\n", title, kAddress.value);
  for (const vmm::PageWalkStep& step : walk->path()) {
    fmt::print("    level {}: the entry at GPA {:#x} is {:#x} ({})\n", step.level, step.entry.value,
               step.value, bits(step.value));
  }
  if (walk->mapped()) {
    fmt::print("  GPA {:#x}\n  {}\n", walk->gpa.value, host_address(vm, walk->gpa));
  } else {
    fmt::print("  page fault, error code {:#x}\n", walk->error_code);
  }
  return *walk;
}

std::uint64_t leaf(const vmm::PageWalk& walk) {
  return walk.depth == 0 ? 0 : walk.steps[walk.depth - 1U].value;
}

}  // namespace

int main() {
  vmm::VmConfig config;
  config.memory.size = vmm::MiB(2);
  config.irqchip = vmm::IrqchipMode::kNone;
  config.boot = vmm::FlatBoot{.image = kGuest.image(), .address = vmm::Gpa(0x1000)};
  const auto created = vmm::Vm::create(std::move(config));
  if (!created) {
    std::fprintf(stderr, "lab_translation: %s\n", created.error().message().c_str());
    return created.error().code() == vmm::ErrorCode::kNoKvm ? 77 : 1;
  }
  vmm::Vm& vm = **created;
  const auto look = [&vm](const char* title) {
    const auto reached =
        vm.run_until({vmm::UntilExit{.kind = "pio", .address = 0x80}}, std::chrono::seconds(30));
    expect(reached && *reached, "the guest comes to the next place");
    return show(vm, title);
  };

  expect(!look("1. Nothing is mapped: the walk ends at the root").mapped(), "a page fault");
  vmm::PageWalk walk = look("2. Four entries later: an address, which nobody has used");
  expect(walk.mapped() && walk.depth == 4 && walk.gpa == vmm::Gpa(0x14000), "mapped to 0x14000");
  expect((leaf(walk) & (vmm::kEntryAccessed | vmm::kEntryDirty)) == 0, "A and D are clear");
  walk = look("3. The guest has read: each entry on the way is marked as accessed");
  expect((leaf(walk) & vmm::kEntryAccessed) != 0, "A is set");
  expect((leaf(walk) & vmm::kEntryDirty) == 0, "D is clear");
  walk = look("4. The guest has written: the last one is marked as dirty, too");
  expect((leaf(walk) & vmm::kEntryDirty) != 0, "D is set");
  expect(vm.memory().read<std::uint32_t>(vmm::Gpa(0x14000)) == 7U, "7 is in the page");
  walk = look("5. The guest has named another page in the last entry");
  expect(walk.gpa == vmm::Gpa(0x15000), "mapped to 0x15000");

  const auto registers = vm.registers(kCpu);
  if (!registers) return 1;
  const std::uint64_t before = registers->gpr[vmm::x86::kRbx];
  fmt::print("\nBefore INVLPG the guest read {}: {}. After it, {}.\n", before,
             before == 7 ? "the TLB still had the old page" : "nothing remembered the old page",
             registers->gpr[vmm::x86::kRcx]);
  expect(before == 7 || before == 8, "the old page or the new one");
  expect(registers->gpr[vmm::x86::kRcx] == 8, "INVLPG makes the new page seen");
  return mistakes == 0 ? 0 : 1;
}
