#include "vmm/loader/module.h"

#include "base/checked.h"
#include "base/size.h"
#include "vmm/loader/input_file.h"

namespace vmm::loader {

Result<GpaRange> load_module(const std::filesystem::path& path, const GuestMemory& memory,
                             const GpaRange& room) {
  constexpr std::uint64_t kPage = 4096;
  constexpr std::uint64_t kMaxFileSize = std::uint64_t{1} << 32;
  const InputFile file = VMM_TRY(InputFile::open(path, kMaxFileSize));
  const auto base = checked_align_up(room.base().value, kPage);
  const auto range = base ? GpaRange::create(Gpa(*base), file.size()) : std::nullopt;
  if (!range || !room.contains(*range) || !memory.contains(*range)) {
    return fail(ErrorCode::kBadKernel,
                "{}: the module of {} does not fit: behind the kernel and other modules there is "
                "{} (the guest has {})",
                file.name(), format_size(file.size()), room, format_size(memory.size()));
  }
  const Result<void> read = VMM_TRY(
      memory.with_view(*range, [&](std::span<std::byte> view) { return file.read_at(0, view); }));
  VMM_TRY(read);
  return *range;
}

}  // namespace vmm::loader
