#include "vmm/stack_walk.h"

#include <array>

#include "base/le.h"
#include "memory/page_walk.h"
#include "vmm/x86/paging_context.h"

namespace vmm {

std::vector<std::uint64_t> callers_of(const GuestMemory& memory, const x86::Registers& registers,
                                      const x86::SystemRegisters& system, std::size_t most) {
  std::vector<std::uint64_t> callers;
  if (!system.code_is_64bit()) return callers;
  const PagingContext context = x86::privileged_context(system, registers.rflags);
  std::uint64_t frame = registers.gpr[x86::kRbp];
  std::uint64_t lowest = registers.gpr[x86::kRsp];
  while (callers.size() < most) {
    std::array<Le64, 2> words;  // the caller's frame pointer, the return address
    if (frame < lowest || frame % 8 != 0 ||
        !read_virtual(memory, context, Gva(frame), std::as_writable_bytes(std::span(words)))) {
      break;
    }
    if (words[1] == 0U) break;
    callers.push_back(words[1]);
    lowest = frame + sizeof words;  // stacks grow down: no way back
    frame = words[0];
  }
  return callers;
}

}  // namespace vmm
