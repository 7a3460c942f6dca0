#include "vmm/linear_memory.h"

#include "memory/page_walk.h"
#include "vmm/x86/paging_context.h"

namespace vmm {
namespace {

Result<void> judge(const VirtualAccess& access) {
  if (access) return {};
  return fail(ErrorCode::kOutOfRange, "{} {:#x}",
              access.outcome == VirtualAccess::Outcome::kFault
                  ? "The guest's page tables map nothing, or nothing writable, at"
                  : "There is no RAM behind the virtual address",
              access.walk.address.value);
}

}  // namespace

Result<void> read_linear(const GuestMemory& memory, const x86::SystemRegisters& system,
                         std::uint64_t rflags, Gva from, std::span<std::byte> bytes) {
  return judge(read_virtual(memory, x86::privileged_context(system, rflags), from, bytes));
}

Result<void> write_linear(const GuestMemory& memory, const x86::SystemRegisters& system,
                          std::uint64_t rflags, Gva to, std::span<const std::byte> bytes) {
  return judge(write_virtual(memory, x86::privileged_context(system, rflags), to, bytes));
}

}  // namespace vmm
