#include "vmm/x86/page_tables.h"

#include <array>

#include "base/le.h"
#include "memory/guest_writer.h"
#include "vmm/x86/layout.h"

namespace vmm::x86 {
namespace {

constexpr std::size_t kEntries = 512;
constexpr std::size_t kDirectories = 4;  // 1 GiB each

using Table = std::array<Le64, kEntries>;
static_assert(sizeof(Table) == kPageSize);

}  // namespace

Result<std::uint64_t> write_identity_map(const GuestMemory& memory, PageAccess access) {
  const std::uint64_t user = access == PageAccess::kEverybody ? kPteUser : 0;
  const std::uint64_t branch = kPtePresent | kPteWritable | kPteAccessed | user;
  const std::uint64_t leaf = branch | kPteDirty | kPteLarge;
  const std::uint64_t base = kBootPageTables.base().value;

  GuestWriter writer(memory, kBootPageTables);
  Table table{};  // PML4, then one PDPT, then the directories
  table[0] = (base + kPageSize) | branch;
  VMM_TRY(writer.put_value(table));
  for (std::size_t i = 0; i < kDirectories; ++i) {
    table[i] = (base + (2 + i) * kPageSize) | branch;
  }
  VMM_TRY(writer.put_value(table));
  for (std::size_t i = 0; i < kDirectories; ++i) {
    for (std::size_t j = 0; j < kEntries; ++j) table[j] = (GiB(i) + MiB(2 * j)) | leaf;
    VMM_TRY(writer.put_value(table));
  }
  return base;
}

}  // namespace vmm::x86
