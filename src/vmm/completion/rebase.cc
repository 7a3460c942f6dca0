#include "vmm/completion/rebase.h"

#include <algorithm>

namespace vmm::completion {
namespace {

// A growing instruction that remembers when it became too long.
class Writer {
 public:
  void put(std::uint8_t byte) noexcept {
    if (code_.size < code_.bytes.size()) {
      code_.bytes[code_.size++] = byte;
    } else {
      overflow_ = true;
    }
  }
  void put(std::span<const std::uint8_t> bytes) noexcept {
    for (const std::uint8_t byte : bytes) put(byte);
  }
  std::optional<RebasedCode> finish() const noexcept {
    if (overflow_) return std::nullopt;
    return code_;
  }

 private:
  RebasedCode code_;
  bool overflow_ = false;
};

constexpr std::uint8_t kOperandSize = 0x66;

bool is_legacy_prefix(std::uint8_t byte) noexcept {
  constexpr std::uint8_t kPrefixes[] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65,
                                        0x66, 0x67, 0xf0, 0xf2, 0xf3};
  return std::find(std::begin(kPrefixes), std::end(kPrefixes), byte) != std::end(kPrefixes);
}

bool is_kept_prefix(std::uint8_t byte) noexcept {
  return byte == kOperandSize || byte == 0xf2 || byte == 0xf3;
}

// An instruction taken apart as far as rebasing needs.
struct Parts {
  std::array<std::uint8_t, 15> prefixes{};
  std::size_t prefix_count = 0;
  bool has_operand_size = false;
  std::uint8_t rex = 0;                  // 0: none
  std::span<const std::uint8_t> opcode;  // VEX, EVEX and XOP prefixes count as opcode
  std::uint8_t modrm = 0;
  bool has_modrm = false;
  bool has_memory = false;
  std::span<const std::uint8_t> rest;  // what follows ModRM, SIB and displacement
};

Parts take_apart(const Instruction& instruction) noexcept {
  Parts parts;
  const auto bytes = instruction.bytes();
  const auto& info = instruction.info();
  std::size_t at = 0;
  for (; at < bytes.size() && is_legacy_prefix(bytes[at]); ++at) {
    if (!is_kept_prefix(bytes[at])) continue;
    parts.prefixes[parts.prefix_count++] = bytes[at];
    parts.has_operand_size = parts.has_operand_size || bytes[at] == kOperandSize;
  }
  const bool is_64bit = info.machine_mode == ZYDIS_MACHINE_MODE_LONG_64;
  if (is_64bit && at < bytes.size() && (bytes[at] & 0xf0) == 0x40) parts.rex = bytes[at++];
  parts.has_modrm = instruction.has(ZYDIS_ATTRIB_HAS_MODRM) && info.raw.modrm.offset >= at &&
                    info.raw.modrm.offset < bytes.size();
  if (!parts.has_modrm) {
    parts.opcode = bytes.subspan(at);
    return parts;
  }
  parts.opcode = bytes.subspan(at, info.raw.modrm.offset - at);
  parts.modrm = bytes[info.raw.modrm.offset];
  parts.has_memory = parts.modrm < 0xc0;
  std::size_t end = info.raw.modrm.offset + 1U;
  if (instruction.has(ZYDIS_ATTRIB_HAS_SIB)) ++end;
  end += info.raw.disp.size / 8U;
  parts.rest = bytes.subspan(std::min(end, bytes.size()));
  return parts;
}

// The opcode without the register extensions of the old base and index: they would number a
// register where there is none now. The bits are inverted in VEX, EVEX and XOP.
void put_opcode(Writer& writer, const Instruction& instruction, const Parts& parts) noexcept {
  std::size_t done = 0;
  const ZydisInstructionEncoding encoding = instruction.info().encoding;
  const bool vex3 = encoding == ZYDIS_INSTRUCTION_ENCODING_VEX && parts.opcode[0] == 0xc4;
  if ((vex3 || encoding == ZYDIS_INSTRUCTION_ENCODING_XOP ||
       encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX) &&
      parts.has_memory && parts.opcode.size() > 1) {
    writer.put(parts.opcode[0]);
    writer.put(static_cast<std::uint8_t>(parts.opcode[1] | 0x60));
    done = 2;
  }
  writer.put(parts.opcode.subspan(done));
}

std::optional<RebasedCode> put_together(const Instruction& instruction, const Parts& parts,
                                        std::uint32_t address, bool operand_size) noexcept {
  Writer writer;
  bool have_operand_size = false;
  for (std::size_t i = 0; i < parts.prefix_count; ++i) {
    if (parts.prefixes[i] == kOperandSize) {
      if (!operand_size || have_operand_size) continue;
      have_operand_size = true;
    }
    writer.put(parts.prefixes[i]);
  }
  if (operand_size && !have_operand_size) writer.put(kOperandSize);
  if (parts.rex != 0) {
    writer.put(parts.has_memory ? static_cast<std::uint8_t>(parts.rex & ~3U) : parts.rex);
  }
  if (parts.opcode.empty()) return std::nullopt;
  put_opcode(writer, instruction, parts);
  if (parts.has_modrm) {
    if (parts.has_memory) {
      writer.put(static_cast<std::uint8_t>((parts.modrm & 0x38) | 0x04));  // mod 0, SIB follows
      writer.put(0x25);                                                    // no base, no index
      for (unsigned i = 0; i < 4; ++i) writer.put(static_cast<std::uint8_t>(address >> (8 * i)));
    } else {
      writer.put(parts.modrm);
    }
    writer.put(parts.rest);
  }
  return writer.finish();
}

bool same_operand(const ZydisDecodedOperand& a, const ZydisDecodedOperand& b,
                  std::uint32_t address) noexcept {
  if (a.type != b.type || a.size != b.size || a.actions != b.actions ||
      a.element_size != b.element_size || a.element_count != b.element_count) {
    return false;
  }
  switch (a.type) {
    case ZYDIS_OPERAND_TYPE_REGISTER:
      return a.reg.value == b.reg.value;
    case ZYDIS_OPERAND_TYPE_IMMEDIATE:
      return a.imm.value.u == b.imm.value.u;
    case ZYDIS_OPERAND_TYPE_MEMORY:
      return a.mem.type == b.mem.type && b.mem.base == ZYDIS_REGISTER_NONE &&
             b.mem.index == ZYDIS_REGISTER_NONE && b.mem.disp.has_displacement &&
             b.mem.disp.value == static_cast<ZyanI64>(address);
    case ZYDIS_OPERAND_TYPE_UNUSED:
    case ZYDIS_OPERAND_TYPE_POINTER:
      return false;
  }
  return false;
}

bool same_meaning(const Instruction& a, const Instruction& b, std::uint32_t address) noexcept {
  const auto& x = a.info();
  const auto& y = b.info();
  if (x.mnemonic != y.mnemonic || x.encoding != y.encoding ||
      x.operand_count_visible != y.operand_count_visible || x.meta.isa_set != y.meta.isa_set ||
      x.avx.mask.reg != y.avx.mask.reg || x.avx.mask.mode != y.avx.mask.mode ||
      x.avx.vector_length != y.avx.vector_length || x.avx.rounding.mode != y.avx.rounding.mode ||
      x.avx.broadcast.mode != y.avx.broadcast.mode || x.avx.has_sae != y.avx.has_sae) {
    return false;
  }
  const auto mine = a.visible();
  const auto theirs = b.visible();
  for (std::size_t i = 0; i < mine.size(); ++i) {
    if (!same_operand(mine[i], theirs[i], address)) return false;
  }
  return true;
}

}  // namespace

std::optional<RebasedCode> rebase(const Instruction& instruction, std::uint32_t address) {
  const Parts parts = take_apart(instruction);
  // In 16-bit code the operand size prefix means the opposite, unless it is part of the opcode: try
  // both ways, and let the comparison decide.
  const bool is_16bit = instruction.info().machine_mode == ZYDIS_MACHINE_MODE_LEGACY_16 ||
                        instruction.info().machine_mode == ZYDIS_MACHINE_MODE_LONG_COMPAT_16 ||
                        instruction.info().machine_mode == ZYDIS_MACHINE_MODE_REAL_16;
  for (const bool flip : {false, true}) {
    if (flip && !is_16bit) break;
    const auto code = put_together(instruction, parts, address, parts.has_operand_size != flip);
    if (!code) continue;
    DecodeFailure why{};
    const auto again =
        Instruction::decode(std::span(code->bytes).first(code->size), CodeSize::k64, why);
    if (again && again->length() == code->size && same_meaning(instruction, *again, address)) {
      return code;
    }
  }
  return std::nullopt;
}

}  // namespace vmm::completion
