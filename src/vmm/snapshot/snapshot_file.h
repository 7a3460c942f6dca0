// The form of a snapshot in a file (docs/snapshot.md):
//
//   header       one page: magic, version, where the sections are and their checksums, its own
//   memory       RamImage's file: each page at its place, holes where there are only zeroes
//   state        CBOR: MachineState and the devices' documents
//   page list    which pages are there, and a checksum for each piece of memory
//   base         of an increment (version 2): the ID and the name of the file whose memory this one
//                changes; pages that this has not are that file's
//
// Everything in it is untrusted when it is read.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "base/replaced_file.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "vmm/snapshot/machine_state.h"
#include "vmm/snapshot/ram_image.h"
#include "vmm/snapshot/snapshot_id.h"

namespace vmm {

// The file that an increment is one of.
struct SnapshotBase {
  SnapshotId id;
  std::string name;  // as it is looked for: beside the increment unless it is absolute

  bool operator==(const SnapshotBase&) const = default;
};

// How an increment in the file `path` names its base. Errors: kBadConfig when both are the same.
Result<std::string> name_of_base(const std::string& path, const std::string& base);

// A file that takes the place of another when it is complete. Until then, and on errors, nothing
// has happened to that.
class SnapshotFile {
 public:
  // Beside `path`. Errors: kIo, kResource.
  static Result<SnapshotFile> create(const std::string& path);

  // Where memory goes: a descriptor of the caller's own for RamImage.
  Result<UniqueFd> ram_file() const { return file_.duplicate(); }
  static constexpr std::uint64_t kRamOffset = 4096;
  // State, page list, base and header: what the file is then known by.
  Result<SnapshotId> seal(const WholeState& state, const RamImage& ram,
                          const SnapshotBase* base = nullptr);
  // After that: all is written to the disk, and takes its place.
  Result<void> commit() { return file_.commit(); }

 private:
  explicit SnapshotFile(ReplacedFile file) : file_(std::move(file)) {}
  ReplacedFile file_;
};

struct LoadedSnapshot {
  WholeState state;
  RamImage ram;  // of an increment: over its base's
  SnapshotId id = {};
  std::optional<SnapshotBase> base = {};
  std::uint64_t own_pages = 0;  // that are in this very file
};

// How many files an increment may be on.
inline constexpr unsigned kMostBases = 64;

// Whether a file begins like a snapshot.
bool looks_like_snapshot(const std::string& path);
// With all files that it is on. Memory is not read, neither its own nor theirs. Errors: kBadState
// naming what is wrong; kIo.
Result<LoadedSnapshot> load_snapshot(const std::string& path);

}  // namespace vmm
