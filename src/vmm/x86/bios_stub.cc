#include "vmm/x86/bios_stub.h"

#include <array>

#include "base/le.h"
#include "memory/guest_writer.h"
#include "vmm/x86/layout.h"

namespace vmm::x86 {
namespace {

// push bp; mov bp, sp; or byte [bp + 6], 1 (carry in the caller's flags); pop bp; mov ah, 86h; iret
constexpr std::array<std::uint8_t, 11> kUnknown{0x55, 0x89, 0xe5, 0x80, 0x4e, 0x06,
                                                0x01, 0x5d, 0xb4, 0x86, 0xcf};
// push ds; xor ax, ax; mov ds, ax; mov ax, [0413h]; pop ds; iret
constexpr std::array<std::uint8_t, 10> kBaseMemory{0x1e, 0x31, 0xc0, 0x8e, 0xd8,
                                                   0xa1, 0x13, 0x04, 0x1f, 0xcf};
// push ax; mov al, 20h; out 0a0h, al; out 20h, al; pop ax; iret
constexpr std::array<std::uint8_t, 9> kHardware{0x50, 0xb0, 0x20, 0xe6, 0xa0,
                                                0xe6, 0x20, 0x58, 0xcf};

constexpr unsigned kInt12 = 0x12;

bool is_hardware(unsigned vector) {
  return (vector >= 0x08 && vector < 0x10) || (vector >= 0x70 && vector < 0x78);
}

// As a real-mode far pointer: the stub lies in segment f000h.
std::uint32_t far_pointer(Gpa code) {
  constexpr std::uint32_t kSegment = 0xf000'0000;
  return kSegment | static_cast<std::uint32_t>(code.offset_from(kBiosArea.base()));
}

}  // namespace

Result<void> write_bios_stub(const GuestMemory& memory) {
  GuestWriter code(memory, kBiosStub);
  const auto put = [&](std::span<const std::uint8_t> handler) -> Result<std::uint32_t> {
    return far_pointer(VMM_TRY(code.put(std::as_bytes(handler))));
  };
  const std::uint32_t unknown = VMM_TRY(put(kUnknown));
  const std::uint32_t base_memory = VMM_TRY(put(kBaseMemory));
  const std::uint32_t hardware = VMM_TRY(put(kHardware));
  std::array<Le32, 256> vectors;
  for (unsigned vector = 0; vector < vectors.size(); ++vector) {
    vectors[vector] = is_hardware(vector) ? hardware : vector == kInt12 ? base_memory : unknown;
  }
  return memory.write(Gpa(0), std::as_bytes(std::span(vectors)));
}

}  // namespace vmm::x86
