#include "vmm/generation_id.h"

#include <sys/random.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/le.h"

namespace vmm {

std::vector<std::byte> generation_id_file() {
  std::vector<std::byte> bytes(sizeof(std::uint64_t));
  const Le64 address(kGenerationId.value);
  std::memcpy(bytes.data(), &address, sizeof address);
  return bytes;
}

Result<void> write_generation_id(const GuestMemory& memory, Gpa address) {
  std::array<std::byte, kGenerationIdSize> id{};
  if (::getrandom(id.data(), id.size(), 0) != static_cast<ssize_t>(id.size())) {
    return fail_errno(errno, "Make a generation ID");
  }
  return memory.write(address, std::span<const std::byte>(id));
}

Result<void> renew_generation_id(const Machine& machine, std::span<const SavedFile> files) {
  const auto file = std::find_if(files.begin(), files.end(), [](const SavedFile& one) {
    return one.name == kGenerationIdFile;
  });
  if (file == files.end() || !machine.acpi_pm) return {};
  Le64 address;
  if (file->content.bytes.size() != sizeof address) {
    return fail(ErrorCode::kBadState, "The file {} of fw_cfg has {} bytes instead of {}",
                kGenerationIdFile, file->content.bytes.size(), sizeof address);
  }
  std::memcpy(&address, file->content.bytes.data(), sizeof address);
  VMM_TRY(with_context(write_generation_id(machine.memory, Gpa(address)),
                       "Give the machine a generation ID"));
  machine.acpi_pm->with([](AcpiPm& pm) {
    pm.set_gpe(kGenerationIdGpe, true);
    pm.set_gpe(kGenerationIdGpe, false);
  });
  return {};
}

}  // namespace vmm
