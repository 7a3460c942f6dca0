#include "vmm/completion/report.h"

#include <fmt/format.h>

#include <iterator>

#include "vmm/completion/data_access.h"
#include "vmm/completion/fetch.h"
#include "vmm/x86/format.h"

namespace vmm::completion {
namespace {

std::string hex_bytes(std::span<const std::uint8_t> bytes) {
  std::string text;
  for (const std::uint8_t byte : bytes) {
    fmt::format_to(std::back_inserter(text), "{}{:02x}", text.empty() ? "" : " ", byte);
  }
  return text.empty() ? "none" : text;
}

std::string operand_walk(const Context& context, const Instruction& instruction) {
  const ZydisDecodedOperand* const operand = instruction.memory_operand();
  if (operand == nullptr || operand->mem.type == ZYDIS_MEMOP_TYPE_VSIB) return {};
  const std::uint32_t size = std::max<std::uint32_t>(operand->size / 8U, 1);
  const bool writes = (operand->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0;
  LinearOperand linear;
  const Step resolved = resolve_operand(context, instruction, *operand, size,
                                        writes ? Direction::kWrite : Direction::kRead, linear);
  if (!resolved.done()) {
    return fmt::format("memory operand: its segment refuses offset {:#x}\n", linear.offset);
  }
  const PageWalk walk = walk_pages(context.memory(), context.paging, Gva(linear.address),
                                   writes ? AccessKind::kWrite : AccessKind::kRead);
  return fmt::format("memory operand, {} bytes at {:#x}:\n{}", size, linear.address,
                     x86::format_walk(walk, context.memory()));
}

}  // namespace

std::string failure_report(const Context& context, const Instruction* instruction,
                           std::string_view reason) {
  std::string text;
  const auto out = std::back_inserter(text);
  const std::uint64_t rip = context.registers.rip;
  if (instruction != nullptr) {
    fmt::format_to(out, "Instruction cannot be finished: {}\n", instruction->text(rip));
    fmt::format_to(out, "because {}\n", reason);
    fmt::format_to(out, "bytes: {}\n", hex_bytes(instruction->bytes()));
  } else {
    fmt::format_to(out, "No instruction to finish: {}\n", reason);
    fmt::format_to(out, "bytes: {}\n", hex_bytes(fetch(context).view()));
  }
  text += x86::format_registers(context.registers, context.system);
  const std::uint64_t base = context.system.code_is_64bit() ? 0 : context.system.cs.base;
  const PageWalk walk =
      walk_pages(context.memory(), context.paging, Gva(base + rip), AccessKind::kFetch);
  fmt::format_to(std::back_inserter(text), "RIP at {:#x}:\n{}", base + rip,
                 x86::format_walk(walk, context.memory()));
  if (instruction != nullptr) text += operand_walk(context, *instruction);
  if (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

}  // namespace vmm::completion
