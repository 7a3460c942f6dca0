// The laboratory of virtualization: state that no instruction shows. A segment register keeps what
// its descriptor said when it was loaded; the descriptor in memory may be another one since. Who
// saves a guest has to save that hidden part: it can be found nowhere else.
//
//   examples/lab_hidden_state
#include <fmt/format.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <utility>

#include "vmm/snapshot/snapshot.h"
#include "vmm/vm.h"
#include "vmm_testing/guest_code.h"

namespace {

// In 32-bit protected mode: a descriptor table of its own at 0x3000, whose entry 0x08 is a segment
// from 0x14000 on, where 7 is, and later one from 0x15000 on, where 8 is. At each "out" the program
// looks.
VMM_GUEST_CODE(kGuest, R"(
    .code32
    movl $7, 0x14000
    movl $8, 0x15000
    movl $0x4000ffff, 0x3008
    movl $0x00cf9301, 0x300c
    movw $15, 0x2ff0
    movl $0x3000, 0x2ff2
    lgdt 0x2ff0
    mov $0x08, %esi
    mov %esi, %es
    out %al, $0x80              # 1: loaded
    movl $0x5000ffff, 0x3008
    out %al, $0x80              # 2: the descriptor is another one
    mov %es:0, %ebx
    out %al, $0x80              # 3: EBX is what was there
    mov %esi, %es
    mov %es:0, %ebx
    out %al, $0x80              # 4: loaded anew
    hlt
)");

constexpr vmm::VcpuId kCpu{0};
constexpr vmm::Gpa kDescriptor(0x3008);

int mistakes = 0;

void expect(bool holds, const char* what) {
  if (holds) return;
  fmt::print("NOT SO: {}\n", what);
  ++mistakes;
}

// The value, or the end of the program with the reason.
template <typename T>
T good(vmm::Result<T> result) {
  if (result) return *std::move(result);
  fmt::print(stderr, "lab_hidden_state: {}\n", result.error().message());
  std::exit(result.error().code() == vmm::ErrorCode::kNoKvm ? 77 : 1);
}

void run_to_next(vmm::Vm& vm) {
  const auto end = good(
      vm.run_until({vmm::UntilExit{.kind = "pio", .address = 0x80}}, std::chrono::seconds(30)));
  expect(static_cast<bool>(end), "the guest comes to the next place");
}

// Where a descriptor says that its segment begins (SDM volume 3, 3.4.5).
std::uint64_t base_in(std::uint64_t descriptor) {
  return (descriptor >> 16 & 0xffffff) | (descriptor >> 56 & 0xff) << 24;
}
std::uint64_t base_in_memory(const vmm::Vm& vm) {
  return base_in(good(vm.memory().read<std::uint64_t>(kDescriptor)));
}
std::uint64_t hidden_base(const vmm::Vm& vm) { return good(vm.system_registers(kCpu)).es.base; }

void show(const char* title, const vmm::Vm& vm) {
  fmt::print("{}\n  ES {:#x}; the descriptor's base {:#x}; the hidden base {:#x}\n", title,
             good(vm.system_registers(kCpu)).es.selector, base_in_memory(vm), hidden_base(vm));
}

// Lets it read through ES.
std::uint64_t read_through_es(vmm::Vm& vm) {
  run_to_next(vm);
  return good(vm.registers(kCpu)).gpr[vmm::x86::kRbx];
}

}  // namespace

int main() {
  vmm::VmConfig config;
  config.memory.size = vmm::MiB(2);
  config.irqchip = vmm::IrqchipMode::kNone;
  config.boot = vmm::FlatBoot{
      .image = kGuest.image(), .address = vmm::Gpa(0x1000), .mode = vmm::FlatMode::kProtected};
  const auto vm = good(vmm::Vm::create(std::move(config)));

  run_to_next(*vm);
  show("1. ES is loaded", *vm);
  expect(hidden_base(*vm) == 0x14000, "the hidden part is the descriptor's");
  run_to_next(*vm);
  show("2. The guest has changed the descriptor, and not ES", *vm);
  expect(hidden_base(*vm) == 0x14000 && base_in_memory(*vm) == 0x15000, "only memory has changed");

  const auto snapshot = good(vm->snapshot());
  const auto copy = good(vmm::Vm::create(vmm::Snapshot::config(snapshot)));
  const auto naive = good(vmm::Vm::create(vmm::Snapshot::config(snapshot)));
  // What is left when the hidden part is not saved: to load the selector from the table once more.
  auto state = good(naive->system_registers(kCpu));
  state.es.base = base_in_memory(*naive);
  expect(static_cast<bool>(naive->set_system_registers(kCpu, state)), "registers can be set");

  const std::uint64_t original_word = read_through_es(*vm);
  const std::uint64_t copied_word = read_through_es(*copy);
  const std::uint64_t naive_word = read_through_es(*naive);
  fmt::print("3. The guest reads through ES\n");
  fmt::print("  the guest itself: {}\n", original_word);
  fmt::print("  a machine from a snapshot: {}\n", copied_word);
  fmt::print("  a machine from what software can see: {}\n", naive_word);
  expect(original_word == 7 && copied_word == 7, "the hidden part stays, and is in snapshots");
  expect(naive_word == 8, "what the table says is another segment");

  const std::uint64_t loaded_word = read_through_es(*vm);
  show("4. ES is loaded anew", *vm);
  fmt::print("  the guest reads {}\n", loaded_word);
  expect(hidden_base(*vm) == 0x15000 && loaded_word == 8, "loading looks into the table");
  return mistakes == 0 ? 0 : 1;
}
