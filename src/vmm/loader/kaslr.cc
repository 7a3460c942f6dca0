#include "vmm/loader/kaslr.h"

#include <algorithm>
#include <bit>

#include "base/size.h"

namespace vmm::loader {
namespace {

// Linux: KERNEL_IMAGE_SIZE with CONFIG_RANDOMIZE_BASE. The physical and the virtual slide are the
// same, so the image's physical end is bounded by it too.
constexpr std::uint64_t kKernelImageSize = GiB(1);
// Linux maps its image with pages of this size, whatever the header says.
constexpr std::uint64_t kLeastAlignment = MiB(2);

struct Slots {
  std::uint64_t first = 0;  // slide of the first one
  std::uint64_t count = 0;
};

Slots slots_in(const GpaRange& usable, const GpaRange& kernel, std::uint64_t alignment, Gpa lowest,
               Gpa highest) {
  const std::uint64_t low = std::max({usable.base().value, lowest.value, kernel.base().value});
  const std::uint64_t high = std::min({usable.end().value, highest.value, kKernelImageSize});
  const auto slide = checked_align_up(low - kernel.base().value, alignment);
  const auto end = slide ? kernel.end().plus(*slide) : std::nullopt;
  if (!end || end->value > high) return {};
  return {*slide, (high - end->value) / alignment + 1};
}

}  // namespace

Result<std::uint64_t> choose_slide(const Kaslr& kaslr, const ElfHeaders& elf,
                                   std::uint64_t alignment, Gpa lowest, Gpa highest) {
  if (!std::has_single_bit(alignment)) {
    return fail(ErrorCode::kBadKernel, "setup header: kernel_alignment {:#x} is not a power of two",
                alignment);
  }
  const std::uint64_t step = std::max(alignment, kLeastAlignment);
  const GpaRange kernel = elf.extent();
  std::vector<Slots> all;
  std::uint64_t total = 0;
  for (const GpaRange& usable : kaslr.usable) {
    all.push_back(slots_in(usable, kernel, step, lowest, highest));
    total += all.back().count;
  }
  if (total == 0) {
    return fail(ErrorCode::kBadKernel,
                "KASLR: a kernel of {} linked at {} fits nowhere in usable RAM between {} and {}",
                format_size(kernel.size()), kernel.base(), lowest, highest);
  }
  std::uint64_t chosen = kaslr.random() % total;
  for (const Slots& slots : all) {
    if (chosen < slots.count) return slots.first + chosen * step;
    chosen -= slots.count;
  }
  return fail(ErrorCode::kBadKernel, "KASLR: no slot {} of {}", chosen, total);
}

}  // namespace vmm::loader
