#include "vmm/loader/flat.h"

#include "base/size.h"

namespace vmm::loader {

Result<GpaRange> load_flat(std::span<const std::byte> image, std::string_view name, Gpa address,
                           const GuestMemory& memory) {
  if (image.empty()) return fail(ErrorCode::kBadKernel, "{}: the flat image is empty", name);
  const auto range = GpaRange::create(address, image.size());
  if (!range || !memory.contains(*range)) {
    return fail(ErrorCode::kBadKernel,
                "{}: {} bytes at address {} do not lie in RAM (the guest has {})", name,
                image.size(), address, format_size(memory.size()));
  }
  VMM_TRY(memory.write(address, image));
  return *range;
}

}  // namespace vmm::loader
