// The laboratory of virtualization: memory that a guest lends back. The monitor asks, a driver in
// the guest chooses pages and names them to the balloon, and the host has them again; later the
// guest takes them back. The program asks the host's kernel each time which pages are there.
//
//   examples/lab_balloon
#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <utility>
#include <vector>

#include "vmm/vm.h"
#include "vmm_testing/guest_code.h"

namespace {

// A driver for the balloon (VIRTIO 1.2, 5.5) at the first virtio-mmio slot, with the 8 MiB from
// 4 MiB on as the memory that it can spare. Each "out" to port 0x80 is a place where the program
// looks.
VMM_GUEST_CODE(kDriver, R"(
    mov $0xe8000000, %ebx
    movl $0, 0x70(%rbx)
    movl $1, 0x70(%rbx)
    movl $3, 0x70(%rbx)
    movl $0, 0x24(%rbx)
    movl $0, 0x20(%rbx)
    movl $1, 0x24(%rbx)
    movl $1, 0x20(%rbx)         # VIRTIO_F_VERSION_1
    movl $0xb, 0x70(%rbx)
    xor %ecx, %ecx              # 0 inflates, 1 deflates; RDX: its descriptors, one page each
    mov $0x10000, %edx
  1:
    mov %ecx, 0x30(%rbx)
    movl $8, 0x38(%rbx)
    mov %edx, 0x80(%rbx)
    lea 0x1000(%rdx), %eax
    mov %eax, 0x90(%rbx)
    lea 0x2000(%rdx), %eax
    mov %eax, 0xa0(%rbx)
    movl $1, 0x44(%rbx)
    movl $0x16000, (%rdx)       # one descriptor is enough: 256 page numbers
    movl $1024, 8(%rdx)
    add $0x3000, %edx
    inc %ecx
    cmp $2, %ecx
    jb 1b
    movl $0xf, 0x70(%rbx)

    mov $0x400000, %esi         # all of the memory is in use
  2:
    movl $7, (%rsi)
    add $4096, %esi
    cmp $0xc00000, %esi
    jb 2b
    out %al, $0x80              # 1

    xor %edi, %edi
    mov $0x400, %ebp            # the first page that is not in the balloon
  3:
    cmpl $0, 0x100(%rbx)        # how many are wanted
    je 3b
  4:
    call .Lballoon_256
    add $256, %ebp
    lea -0x400(%rbp), %eax
    mov %eax, 0x104(%rbx)       # how many there are
    cmp 0x100(%rbx), %eax
    jb 4b
    out %al, $0x80              # 2

    inc %edi
  5:
    cmpl $0, 0x100(%rbx)
    jne 5b
  6:
    sub $256, %ebp
    call .Lballoon_256
    lea -0x400(%rbp), %eax
    mov %eax, 0x104(%rbx)
    test %eax, %eax
    jnz 6b
    out %al, $0x80              # 3

    xor %r12d, %r12d            # pages in which there still is something
    mov $0x400000, %esi
  7:
    cmpl $0, (%rsi)
    je 8f
    inc %r12d
  8:
    movl $9, (%rsi)
    add $4096, %esi
    cmp $0xc00000, %esi
    jb 7b
    out %al, $0x80              # 4
    hlt

  .Lballoon_256:                # EDI: queue, EBP: the first of 256 pages
    mov $0x16000, %edx
    mov %ebp, %eax
  1:
    mov %eax, (%rdx)
    inc %eax
    add $4, %edx
    cmp $0x16400, %edx
    jb 1b
    imul $0x3000, %edi, %ecx
    incw 0x11002(%rcx)
    mfence
    mov %edi, 0x50(%rbx)
  2:
    pause
    mov 0x11002(%rcx), %ax
    cmp %ax, 0x12002(%rcx)
    jne 2b
    ret
)");

constexpr vmm::Gpa kSpare(0x400000);
constexpr std::uint64_t kSpareBytes = vmm::MiB(8);
constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kPages = kSpareBytes / kPage;

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
  fmt::print(stderr, "lab_balloon: {}\n", result.error().message());
  std::exit(result.error().code() == vmm::ErrorCode::kNoKvm ? 77 : 1);
}

// How many of the guest's pages the host has memory for (mincore(2)).
std::uint64_t resident_pages(const vmm::Vm& vm) {
  const vmm::GuestRegion* const region = vm.memory().find(kSpare);
  std::vector<unsigned char> pages(kPages);
  if (region == nullptr) return 0;
  std::byte* const begin = region->hva() + (kSpare.value - region->range().base().value);
  expect(::mincore(begin, kSpareBytes, pages.data()) == 0, "the kernel tells");
  return static_cast<std::uint64_t>(std::count_if(
      pages.begin(), pages.end(), [](unsigned char page) { return (page & 1) != 0; }));
}

// Lets the guest come to its next place, and shows what is there then.
std::uint64_t look(vmm::Vm& vm, const char* title) {
  const auto end = good(
      vm.run_until({vmm::UntilExit{.kind = "pio", .address = 0x80}}, std::chrono::seconds(60)));
  expect(static_cast<bool>(end), "the guest comes to the next place");
  const std::uint64_t resident = resident_pages(vm);
  const vmm::BalloonStatus balloon = vm.status().balloon.value_or(vmm::BalloonStatus());
  fmt::print("{:44}{:>8}{:>16} of {}\n", title, balloon.actual / kPage, resident, kPages);
  return resident;
}

}  // namespace

int main() {
  vmm::VmConfig config;
  config.memory.size = vmm::MiB(16);
  config.irqchip = vmm::IrqchipMode::kNone;
  config.boot = vmm::FlatBoot{.image = kDriver.image(), .address = vmm::Gpa(0x1000)};
  config.virtio_transport = vmm::VirtioTransport::kMmio;
  config.virtio.emplace_back(vmm::VirtioBalloonConfig{});
  const auto vm = good(vmm::Vm::create(std::move(config)));

  fmt::print("{:44}{:>8}{:>16}\n", "pages", "balloon", "on the host");
  expect(look(*vm, "1. the guest has written to all") == kPages, "memory is there");

  expect(static_cast<bool>(vm->set_balloon(kSpareBytes)), "there is a balloon");
  const std::uint64_t lent = look(*vm, "2. the balloon has been filled");
  expect(lent == 0, "the host has the memory again");
  expect(vm->status().balloon && vm->status().balloon->actual == kSpareBytes, "the guest tells it");

  expect(static_cast<bool>(vm->set_balloon(0)), "there is a balloon");
  expect(look(*vm, "3. it is empty again") == 0, "nothing comes before it is used");
  expect(look(*vm, "4. the guest has written to all once more") == kPages, "memory is there");
  const std::uint64_t kept = good(vm->registers(vmm::VcpuId{0})).gpr[vmm::x86::kR12];
  fmt::print("\nOf what the guest had written before the balloon, {} pages were left.\n", kept);
  expect(kept == 0, "what is in a balloon is lost");
  return mistakes == 0 ? 0 : 1;
}
