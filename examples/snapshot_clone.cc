// A guest that boots once, and machines that go on from where it then is, each its own way. Memory
// is shared until somebody writes it, page by page; going back costs what was written.
//
//   examples/snapshot_clone
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "base/unique_fd.h"
#include "vmm/snapshot/snapshot.h"
#include "vmm/vm.h"
#include "vmm_testing/guest_code.h"

namespace {

// Boots: puts the number 7 into each of 1024 pages from 2 MiB on. Then it does as it is told, again
// and again: writes EAX into the first RCX of these pages.
VMM_GUEST_CODE(kGuest, R"(
    mov $7, %eax
    mov $1024, %ecx
  .Lclone_write:
    mov $0x200000, %edi
  .Lclone_page:
    mov %eax, (%rdi)
    add $4096, %rdi
    dec %rcx
    jnz .Lclone_page
    out %al, $0x80              # done: here it is told what is next
    jmp .Lclone_write
)");

constexpr vmm::VcpuId kCpu{0};
constexpr vmm::Gpa kTable(0x200000);
constexpr std::uint64_t kTablePages = 1024;
constexpr std::uint64_t kPage = 4096;

int mistakes = 0;

void expect(bool holds, std::string_view what) {
  if (holds) return;
  fmt::print("NOT SO: {}\n", what);
  ++mistakes;
}

// The value, or the end of the program with the reason.
template <typename T>
T good(vmm::Result<T> result) {
  if (result) return *std::move(result);
  fmt::print(stderr, "snapshot_clone: {}\n", result.error().message());
  // Without KVM there is nothing to show: Meson's exit status for a test that skips itself.
  std::exit(result.error().code() == vmm::ErrorCode::kNoKvm ? 77 : 1);
}

void run_to_marker(vmm::Vm& vm) {
  const auto end = good(
      vm.run_until({vmm::UntilExit{.kind = "pio", .address = 0x80}}, std::chrono::seconds(30)));
  expect(static_cast<bool>(end), "the guest comes to its marker");
}

// Has a guest write `value` to so many pages.
void tell(vmm::Vm& vm, std::uint64_t pages, std::uint32_t value) {
  auto registers = good(vm.registers(kCpu));
  registers.gpr[vmm::x86::kRax] = value;
  registers.gpr[vmm::x86::kRcx] = pages;
  expect(static_cast<bool>(vm.set_registers(kCpu, registers)), "registers can be set");
  run_to_marker(vm);
}

std::uint32_t first_word(const vmm::Vm& vm) {
  return good(vm.memory().read<std::uint32_t>(kTable));
}

// Of the guest's 1024 pages, how many this machine has by itself: the kernel tells of each page of
// a process whether it still belongs to the file that it was mapped from (proc_pid_pagemap(5)).
std::uint64_t own_pages(const vmm::Vm& vm) {
  constexpr std::uint64_t kPresent = std::uint64_t{1} << 63;
  constexpr std::uint64_t kOfFile = std::uint64_t{1} << 61;
  const vmm::GuestRegion* const region = vm.memory().find(kTable);
  const vmm::UniqueFd pagemap(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  std::array<std::uint64_t, kTablePages> entries{};
  if (region == nullptr) return 0;
  const auto address = reinterpret_cast<std::uintptr_t>(region->hva()) +
                       (kTable.value - region->range().base().value);
  const auto place = static_cast<off_t>(address / kPage * sizeof(std::uint64_t));
  if (::pread(pagemap.get(), entries.data(), sizeof(entries), place) != sizeof(entries)) return 0;
  std::uint64_t own = 0;
  for (const std::uint64_t entry : entries) {
    if ((entry & kPresent) != 0 && (entry & kOfFile) == 0) ++own;
  }
  return own;
}

std::uint64_t different_pages(vmm::Vm& vm, const vmm::Snapshot& from) {
  const auto now = good(vm.snapshot());
  std::uint64_t pages = 0;
  for (const vmm::GpaRange& range : good(now->memory_difference(from))) {
    pages += range.size() / kPage;
  }
  return pages;
}

double milliseconds(std::chrono::steady_clock::duration time) {
  return std::chrono::duration<double, std::milli>(time).count();
}

}  // namespace

int main() {
  using std::chrono::steady_clock;
  vmm::VmConfig config;
  config.memory.size = vmm::MiB(16);
  config.irqchip = vmm::IrqchipMode::kNone;
  config.boot = vmm::FlatBoot{.image = kGuest.image(), .address = vmm::Gpa(0x1000)};
  const auto first = good(vmm::Vm::create(std::move(config)));
  run_to_marker(*first);
  const auto snapshot = good(first->snapshot());
  fmt::print("The guest has booted: {} KiB of its {} MiB are in the snapshot.\n\n",
             snapshot->stored_bytes() >> 10, snapshot->memory() >> 20);

  fmt::print("Three machines that go on from there:\n");
  std::vector<std::unique_ptr<vmm::Vm>> clones;
  for (int i = 0; i < 3; ++i) {
    const auto begin = steady_clock::now();
    clones.push_back(good(vmm::Vm::create(vmm::Snapshot::config(snapshot))));
    fmt::print("  made in {:.1f} ms; its own pages: {}; its first word: {}\n",
               milliseconds(steady_clock::now() - begin), own_pages(*clones.back()),
               first_word(*clones.back()));
    expect(own_pages(*clones.back()) == 0, "nothing is copied before it is written");
    expect(first_word(*clones.back()) == 7, "a clone knows what was booted");
  }

  fmt::print("\nEach is told something else:\n");
  constexpr std::array<std::uint64_t, 3> kPages{1, 20, 300};
  for (std::size_t i = 0; i < clones.size(); ++i) {
    tell(*clones[i], kPages[i], static_cast<std::uint32_t>(100 + i));
    const std::uint64_t own = own_pages(*clones[i]);
    const std::uint64_t different = different_pages(*clones[i], *snapshot);
    fmt::print("  pages written: {}; its own: {}; different from the snapshot: {}\n", kPages[i],
               own, different);
    expect(own == kPages[i] && different == kPages[i], "exactly what was written is copied");
  }
  fmt::print("  their first words are now {}, {} and {}; the first machine's is still {}\n",
             first_word(*clones[0]), first_word(*clones[1]), first_word(*clones[2]),
             first_word(*first));
  for (std::size_t i = 0; i < clones.size(); ++i) {
    expect(first_word(*clones[i]) == 100 + i, "each has its own word");
  }
  expect(first_word(*first) == 7, "clones do not reach the first machine");

  fmt::print("\nThe first one goes on, and back:\n");
  for (const std::uint64_t pages : std::array<std::uint64_t, 4>{1, 20, 300, 1024}) {
    tell(*first, pages, 200);
    expect(first_word(*first) == 200, "it has written");
    const auto begin = steady_clock::now();
    const auto back = first->reset_to(snapshot);
    const double took = milliseconds(steady_clock::now() - begin);
    expect(static_cast<bool>(back) && first_word(*first) == 7, "it is where it was");
    fmt::print("  after {:4} pages: back in {:.2f} ms\n", pages, took);
  }
  return mistakes == 0 ? 0 : 1;
}
