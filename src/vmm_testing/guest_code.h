// Guest code that is written as assembly where it is used, and assembled when the program is
// compiled.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

// Defines `name`, a vmm::testing::GuestCode with what `text` (a string literal, in the syntax of
// GNU as for x86) assembles to; at namespace scope, in one source file. The code does not know
// where it will lie: addresses of its own labels are to be taken relative to RIP. Labels are the
// whole file's, so that ".Lname_..." or numbers keep them apart. The assembler begins in 64-bit
// mode; ".code16" and ".code32" change that for the rest of the text.
//
//   VMM_GUEST_CODE(kAnswer, R"(
//     mov $42, %al
//     out %al, $0xf4
//   )");
#define VMM_GUEST_CODE(name, text)                                                            \
  extern "C" {                                                                                \
  extern const std::byte vmm_guest_code_begin_##name[] __attribute__((visibility("hidden"))); \
  extern const std::byte vmm_guest_code_end_##name[] __attribute__((visibility("hidden")));   \
  }                                                                                           \
  __asm__(                                                                                    \
      ".pushsection .rodata.vmm_guest_code,\"a\",@progbits\n"                                 \
      ".globl vmm_guest_code_begin_" #name                                                    \
      "\n"                                                                                    \
      ".globl vmm_guest_code_end_" #name                                                      \
      "\n"                                                                                    \
      ".hidden vmm_guest_code_begin_" #name                                                   \
      "\n"                                                                                    \
      ".hidden vmm_guest_code_end_" #name                                                     \
      "\n"                                                                                    \
      "vmm_guest_code_begin_" #name ":\n" text                                                \
      "\n"                                                                                    \
      "vmm_guest_code_end_" #name                                                             \
      ":\n"                                                                                   \
      ".code64\n"                                                                             \
      ".popsection\n");                                                                       \
  [[maybe_unused]] static const ::vmm::testing::GuestCode name {                              \
    vmm_guest_code_begin_##name, vmm_guest_code_end_##name                                    \
  }

namespace vmm::testing {

// Bytes of the program's own, for as long as it runs. Value type.
class GuestCode {
 public:
  GuestCode(const std::byte* begin, const std::byte* end) noexcept : bytes_(begin, end) {}

  std::span<const std::byte> bytes() const noexcept { return bytes_; }
  // For FlatBoot::image.
  std::vector<std::byte> image() const { return {bytes_.begin(), bytes_.end()}; }

 private:
  std::span<const std::byte> bytes_;
};

}  // namespace vmm::testing
