#include "vmm/completion/lanes.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "vmm/completion/xsave_layout.h"
#include "vmm/completion/zydis_library.h"

namespace vmm::completion {
namespace {

using Touched = std::vector<std::uint8_t>;

// SDM volume 2, 2.8: the exception classes whose masked-off elements do not fault.
bool suppresses_faults(ZydisExceptionClass which) noexcept {
  constexpr ZydisExceptionClass kSuppressing[] = {
      ZYDIS_EXCEPTION_CLASS_E1,  ZYDIS_EXCEPTION_CLASS_E2,  ZYDIS_EXCEPTION_CLASS_E3,
      ZYDIS_EXCEPTION_CLASS_E4,  ZYDIS_EXCEPTION_CLASS_E5,  ZYDIS_EXCEPTION_CLASS_E6,
      ZYDIS_EXCEPTION_CLASS_E10, ZYDIS_EXCEPTION_CLASS_E11,
  };
  return std::find(std::begin(kSuppressing), std::end(kSuppressing), which) !=
         std::end(kSuppressing);
}

bool is_scalar(ZydisExceptionClass which) noexcept {
  return which == ZYDIS_EXCEPTION_CLASS_E3 || which == ZYDIS_EXCEPTION_CLASS_E10;
}

std::uint64_t low_bits(unsigned n) noexcept { return n >= 64 ? ~0ULL : (1ULL << n) - 1; }

// Elements of the widest vector register that the instruction names.
unsigned vector_elements(const Instruction& instruction) noexcept {
  unsigned elements = 0;
  unsigned width = 0;
  for (const ZydisDecodedOperand& operand : instruction.visible()) {
    if (operand.type != ZYDIS_OPERAND_TYPE_REGISTER) continue;
    const ZydisRegisterClass which = zydis().register_class(operand.reg.value);
    if (which != ZYDIS_REGCLASS_XMM && which != ZYDIS_REGCLASS_YMM && which != ZYDIS_REGCLASS_ZMM) {
      continue;
    }
    if (operand.size > width) {
      width = operand.size;
      elements = operand.element_count;
    }
  }
  return elements;
}

// Elements of the memory operand that an EVEX mask selects, as a bit mask.
std::uint64_t selected_elements(const Instruction& instruction, const ZydisDecodedOperand& operand,
                                std::uint64_t mask) noexcept {
  const auto& info = instruction.info();
  const unsigned in_memory = operand.element_count;
  if (is_scalar(info.meta.exception_class)) return mask & 1;
  if (info.meta.category == ZYDIS_CATEGORY_COMPRESS ||
      info.meta.category == ZYDIS_CATEGORY_EXPAND) {
    return low_bits(static_cast<unsigned>(std::popcount(mask & low_bits(in_memory))));
  }
  const bool is_store = (operand.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0;
  const unsigned lanes = is_store ? in_memory : vector_elements(instruction);
  if (lanes == in_memory) return mask & low_bits(lanes);
  if (in_memory == 0 || lanes < in_memory) return low_bits(in_memory);
  std::uint64_t selected = 0;  // a broadcast: element i feeds lanes i, i + in_memory, ...
  for (unsigned lane = 0; lane < lanes && lane < 64; ++lane) {
    if ((mask >> lane & 1) != 0) selected |= 1ULL << (lane % in_memory);
  }
  return selected;
}

Touched by_element(const ZydisDecodedOperand& operand, std::uint64_t selected) {
  Touched touched(operand.size / 8U, 0);
  const std::size_t bytes = std::max<std::size_t>(operand.element_size / 8U, 1);
  for (std::size_t i = 0; i < touched.size(); ++i) {
    const std::size_t element = i / bytes;
    touched[i] = element < 64 && (selected >> element & 1) != 0 ? 1 : 0;
  }
  return touched;
}

// Bytes of a vector register: the low half lies in the legacy region, the upper one with AVX's.
std::vector<std::uint8_t> vector_bytes(const x86::XsaveArea& image, const XsaveLayout& layout,
                                       ZydisRegister which, std::size_t size) {
  const auto index = static_cast<std::size_t>(std::max<ZyanI8>(zydis().register_id(which), 0)) & 15;
  std::vector<std::uint8_t> bytes(size, 0);
  for (std::size_t i = 0; i < size && i < 32; ++i) {
    const std::size_t base =
        i < 16 ? kXsaveXmm + 16 * index : layout.components[2].offset + 16 * index;
    bytes[i] = xsave_field<std::uint8_t>(image, base + i % 16);
  }
  return bytes;
}

// Bytes of an MMX register: the area holds the stack from its top.
std::vector<std::uint8_t> mmx_bytes(const x86::XsaveArea& image, ZydisRegister which) {
  const auto status = xsave_field<std::uint16_t>(image, kXsaveFcw + 2);
  const unsigned top = (status >> 11) & 7;
  const auto index = static_cast<unsigned>(std::max<ZyanI8>(zydis().register_id(which), 0));
  const std::size_t base = 32 + 16 * std::size_t{(index - top) & 7};
  std::vector<std::uint8_t> bytes(8, 0);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = xsave_field<std::uint8_t>(image, base + i);
  }
  return bytes;
}

// One flag an element: the sign bit of the mask register's element.
Touched by_sign_bits(const std::vector<std::uint8_t>& mask, std::size_t element_bytes) {
  Touched touched(mask.size(), 0);
  for (std::size_t i = 0; i < touched.size(); ++i) {
    const std::size_t top = (i / element_bytes + 1) * element_bytes - 1;
    touched[i] = top < mask.size() && (mask[top] & 0x80) != 0 ? 1 : 0;
  }
  return touched;
}

// The bytes in one element of VMASKMOV's mask; 0 for every other instruction.
std::size_t mask_move_element(ZydisMnemonic mnemonic) noexcept {
  if (mnemonic == ZYDIS_MNEMONIC_VMASKMOVPS || mnemonic == ZYDIS_MNEMONIC_VPMASKMOVD) return 4;
  if (mnemonic == ZYDIS_MNEMONIC_VMASKMOVPD || mnemonic == ZYDIS_MNEMONIC_VPMASKMOVQ) return 8;
  return 0;
}

}  // namespace

Result<std::vector<std::uint8_t>> touched_bytes(Context& context, const Instruction& instruction,
                                                const ZydisDecodedOperand& operand) {
  const ZydisMnemonic m = instruction.mnemonic();
  const auto visible = instruction.visible();
  if (const std::size_t element = mask_move_element(m); element != 0 && visible.size() == 3) {
    // The mask is the second source: the operand after the destination of either form.
    const x86::XsaveArea& image = *VMM_TRY(context.xsave());
    return by_sign_bits(
        vector_bytes(image, context.xsave_layout(), visible[1].reg.value, operand.size / 8U),
        element);
  }
  if (m == ZYDIS_MNEMONIC_MASKMOVDQU || m == ZYDIS_MNEMONIC_VMASKMOVDQU) {
    const x86::XsaveArea& image = *VMM_TRY(context.xsave());
    return by_sign_bits(vector_bytes(image, context.xsave_layout(), visible[1].reg.value, 16), 1);
  }
  if (m == ZYDIS_MNEMONIC_MASKMOVQ) {
    return by_sign_bits(mmx_bytes(*VMM_TRY(context.xsave()), visible[1].reg.value), 1);
  }
  const auto& info = instruction.info();
  const ZydisRegister mask = info.avx.mask.reg;
  if (info.encoding != ZYDIS_INSTRUCTION_ENCODING_EVEX || mask == ZYDIS_REGISTER_NONE ||
      mask == ZYDIS_REGISTER_K0 || !suppresses_faults(info.meta.exception_class)) {
    return Touched();
  }
  const x86::XsaveArea& image = *VMM_TRY(context.xsave());
  const auto& component = context.xsave_layout().components[5];
  const auto index = static_cast<std::size_t>(std::max<ZyanI8>(zydis().register_id(mask), 0));
  const auto value = xsave_field<std::uint64_t>(image, component.offset + 8 * index);
  return by_element(operand, selected_elements(instruction, operand, value));
}

}  // namespace vmm::completion
