#include "vmm/trace/syscall_trace.h"

#include <fmt/format.h>

#include <algorithm>

#include "memory/page_walk.h"
#include "vmm/trace/syscall_text.h"
#include "vmm/x86/paging_context.h"

namespace vmm {
namespace {

// CR3 of one process: with page table isolation the kernel's and the user's tables lie side by side
// (Linux: arch/x86/mm/pti.c), and the lowest bits are a number for the TLB.
std::uint64_t space_of(const x86::SystemRegisters& system) noexcept {
  return system.cr3 & ~std::uint64_t{0x1fff};
}

}  // namespace

void SyscallTrace::entered(VcpuId cpu, const x86::Registers& registers,
                           const x86::SystemRegisters& system) {
  const auto& r = registers.gpr;
  const std::uint64_t number = r[x86::kRax];
  PagingContext context = x86::privileged_context(system, registers.rflags);
  context.pkru = 0;
  const ReadUser read = [&](std::uint64_t from, std::span<std::byte> bytes) {
    constexpr std::size_t kPage = 4096;
    std::size_t done = 0;
    while (done < bytes.size()) {
      const std::size_t size = std::min(bytes.size() - done, kPage - (from + done) % kPage);
      if (!read_virtual(memory_, context, Gva(from + done), bytes.subspan(done, size))) break;
      done += size;
    }
    return done;
  };
  waiting_.with([&](auto& waiting) {
    // What never comes back, because its thread is gone, must not stay for ever.
    if (waiting.size() >= kMostWaiting) waiting.clear();
    waiting[{space_of(system), r[x86::kRsp], r[x86::kRcx]}] = number;
  });
  sink_(fmt::format(
      "vcpu{} syscall {} rip {:#x}", static_cast<std::uint32_t>(cpu),
      syscall_text(
          number,
          {r[x86::kRdi], r[x86::kRsi], r[x86::kRdx], r[x86::kR10], r[x86::kR8], r[x86::kR9]}, read),
      r[x86::kRcx]));
}

void SyscallTrace::returning(VcpuId cpu, const x86::Registers& registers,
                             const x86::SystemRegisters& system) {
  const auto& r = registers.gpr;
  const auto number = waiting_.with([&](auto& waiting) -> std::optional<std::uint64_t> {
    const auto found = waiting.find({space_of(system), r[x86::kRsp], registers.rip});
    if (found == waiting.end()) return std::nullopt;
    const std::uint64_t called = found->second;
    waiting.erase(found);
    return called;
  });
  if (!number) return;
  sink_(fmt::format("vcpu{} syscall {} rip {:#x}", static_cast<std::uint32_t>(cpu),
                    syscall_return_text(*number, r[x86::kRax]), registers.rip));
}

}  // namespace vmm
