// Snapshots of machines that are nothing but memory.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/size.h"
#include "vmm/snapshot/machine_state.h"
#include "vmm/snapshot/snapshot.h"
#include "vmm/snapshot/snapshot_file.h"
#include "vmm/x86/layout.h"

namespace vmm::test {

inline constexpr std::uint64_t kSavedMemory = MiB(4);

// Pages by number, and the word that each begins with.
using SavedWords = std::vector<std::pair<std::uint64_t, std::uint64_t>>;

inline WholeState state_of_memory() {
  WholeState state;
  state.machine.shape.memory = kSavedMemory;
  state.machine.cpus.resize(1);
  state.machine.tsc_khz = 2'000'000;
  return state;
}

// Of a machine that has these, written to `file` and opened again.
inline Result<std::shared_ptr<const Snapshot>> saved_memory(const std::string& file,
                                                            const SavedWords& words) {
  std::vector<GuestRegion> regions;
  for (const GpaRange& range : x86::ram_ranges(kSavedMemory)) {
    regions.push_back(VMM_TRY(GuestRegion::create(range, {})));
  }
  const GuestMemory memory = VMM_TRY(GuestMemory::create(std::move(regions)));
  for (const auto& [page, word] : words) VMM_TRY(memory.write(Gpa(page * 4096), word));
  UniqueFd copy = VMM_TRY(RamImage::create_memory_file(kSavedMemory));
  RamImage ram = VMM_TRY(RamImage::copy_of(memory, nullptr, std::move(copy), {}));
  VMM_TRY(Snapshot(state_of_memory(), std::move(ram)).write(file));
  return Snapshot::open(file);
}

// An increment of `base` in which these are so.
inline Result<std::shared_ptr<const Snapshot>> saved_increment(const std::string& file,
                                                               const std::string& base,
                                                               const SavedWords& words) {
  const auto earlier = VMM_TRY(Snapshot::open(base));
  const GuestMemory memory = VMM_TRY(earlier->ram().map());
  for (const auto& [page, word] : words) VMM_TRY(memory.write(Gpa(page * 4096), word));
  SnapshotFile to = VMM_TRY(SnapshotFile::create(file));
  UniqueFd written = VMM_TRY(to.ram_file());
  const RamImage ram = VMM_TRY(
      RamImage::changes_of(memory, &earlier->ram(), earlier->ram(), nullptr, std::move(written),
                           {.offset = SnapshotFile::kRamOffset, .checksums = true}));
  const SnapshotBase on{.id = earlier->id(), .name = VMM_TRY(name_of_base(file, base))};
  VMM_TRY(to.seal(state_of_memory(), ram, &on));
  VMM_TRY(to.commit());
  return Snapshot::open(file);
}

}  // namespace vmm::test
