// The bytes of a memory operand: where they are, whether the guest may touch them, and copying them
// in and out, through RAM and MMIO alike.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "memory/page_walk.h"
#include "vmm/completion/context.h"
#include "vmm/completion/step.h"

namespace vmm::completion {

// Where an operand lies before paging.
struct LinearOperand {
  std::uint64_t address = 0;   // linear: segment base added
  std::uint64_t offset = 0;    // in its segment: the effective address
  std::uint32_t size = 0;      // bytes
  bool stack_segment = false;  // faults of the address are #SS instead of #GP
};

// What the instruction does to it.
enum class Direction : std::uint8_t { kRead, kWrite, kReadWrite };

// The effective and linear address of `operand` of `size` bytes, with the checks of its segment
// (SDM volume 3, 5.3 and 5.5): a done step, or the #GP or #SS that they raise.
Step resolve_operand(const Context& context, const Instruction& instruction,
                     const ZydisDecodedOperand& operand, std::uint32_t size, Direction direction,
                     LinearOperand& linear);
// The same for [segment:register], as string instructions address memory.
Step resolve_register(const Context& context, ZydisRegister segment, std::uint64_t offset,
                      std::uint32_t size, Direction direction, LinearOperand& linear);

// A translated operand. All pages are checked, for writing when the instruction writes, before a
// byte is copied.
class DataAccess {
 public:
  static constexpr std::uint32_t kMaxSize = 16384;  // an XSAVE area with room to spare

  // A done step, or #PF, #GP, #SS as the processor raises it. `touched`, when not empty, has one
  // byte for each of the operand, 0 for those that the instruction leaves alone: pages without a
  // touched byte are not looked at.
  static Result<Step> translate(const Context& context, const LinearOperand& linear,
                                Direction direction, DataAccess& access,
                                std::span<const std::uint8_t> touched = {});

  const LinearOperand& linear() const noexcept { return linear_; }
  bool all_ram() const noexcept { return all_ram_; }
  // The GPA of the first byte when all bytes are contiguous RAM.
  std::optional<Gpa> contiguous_ram() const noexcept;

  // Copies the operand; untouched bytes of `to` stay as they are, those of the guest too.
  Result<void> gather(const Context& context, std::span<std::byte> to) const;
  Result<void> scatter(const Context& context, std::span<const std::byte> from) const;

 private:
  struct Piece {
    Gpa gpa;
    std::uint32_t offset = 0;  // in the operand
    std::uint32_t size = 0;
    bool ram = false;
  };
  // Calls fn(piece) for each run of touched bytes.
  template <typename Fn>
  Result<void> for_each_run(Fn&& fn) const;

  LinearOperand linear_;
  std::vector<Piece> pieces_;
  std::vector<std::uint8_t> touched_;
  bool all_ram_ = true;
};

}  // namespace vmm::completion
