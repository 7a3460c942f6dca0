// The form of a snapshot in a file (docs/snapshot.md):
//
//   header       one page: magic, version, where the sections are and their checksums, its own
//   memory       RamImage's file: each page at its place, holes where there are only zeroes
//   state        CBOR: MachineState and the devices' documents
//   page list    which pages are there, and a checksum for each piece of memory
//
// Everything in it is untrusted when it is read.
#pragma once

#include <functional>
#include <string>

#include "base/replaced_file.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "vmm/snapshot/machine_state.h"
#include "vmm/snapshot/ram_image.h"

namespace vmm {

// A file that takes the place of another when it is complete. Until then, and on errors, nothing
// has happened to that.
class SnapshotFile {
 public:
  // Beside `path`. Errors: kIo, kResource.
  static Result<SnapshotFile> create(const std::string& path);

  // Where memory goes: a descriptor of the caller's own for RamImage.
  Result<UniqueFd> ram_file() const { return file_.duplicate(); }
  static constexpr std::uint64_t kRamOffset = 4096;
  // State, page list and header; then all is written to the disk, and takes its place.
  Result<void> finish(const WholeState& state, const RamImage& ram);

 private:
  explicit SnapshotFile(ReplacedFile file) : file_(std::move(file)) {}
  ReplacedFile file_;
};

struct LoadedSnapshot {
  WholeState state;
  RamImage ram;
};

// Whether a file begins like a snapshot.
bool looks_like_snapshot(const std::string& path);
// Errors: kBadState naming what is wrong; kIo.
Result<LoadedSnapshot> load_snapshot(const std::string& path);

}  // namespace vmm
