#include "vmm/disassemble.h"

#include "vmm/completion/instruction.h"
#include "vmm/completion/zydis_library.h"

namespace vmm {

using completion::DecodeFailure;
using completion::Instruction;

Result<std::vector<CodeLine>> disassemble(std::span<const std::byte> code, std::uint64_t address,
                                          const x86::SystemRegisters& system, std::size_t most) {
  if (const auto& library = completion::load_zydis(); !library) {
    return tl::unexpected<Error>(library.error());
  }
  const completion::CodeSize size = completion::code_size(system);
  std::span<const std::uint8_t> rest(reinterpret_cast<const std::uint8_t*>(code.data()),
                                     code.size());
  std::vector<CodeLine> lines;
  while (!rest.empty() && lines.size() < most) {
    DecodeFailure why{};
    const auto instruction = Instruction::decode(rest, size, why);
    if (!instruction) break;
    lines.push_back({address, instruction->length(), instruction->text(address)});
    address += instruction->length();
    rest = rest.subspan(instruction->length());
  }
  return lines;
}

}  // namespace vmm
