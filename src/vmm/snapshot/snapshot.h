// A machine at one moment: all that its guest can tell, in memory or in a file.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "memory/address.h"
#include "vmm/config.h"
#include "vmm/snapshot/snapshot_id.h"

namespace vmm {

class RamImage;
struct WholeState;
namespace interpreter {
class SharedLines;
}

// Immutable; shared by whoever goes on from it (Vm::reset_to(), SnapshotBoot). Any thread.
class Snapshot {
 public:
  // From a file. It stays open, is read when memory is touched, and must not be changed; a new one
  // may be put in its place. The file is not trusted: header, state and the list of pages are
  // checked here, memory itself is not read. So are those of the files that an increment is on.
  // Errors: kBadState saying what is wrong with it; kIo.
  static Result<std::shared_ptr<const Snapshot>> open(const std::string& path);
  // Whether a file says that it is one.
  static bool is_snapshot(const std::string& path);
  // For those who make one.
  Snapshot(WholeState state, RamImage ram, std::vector<QuirkOverride> quirks = {},
           std::shared_ptr<interpreter::SharedLines> lines = nullptr);
  ~Snapshot();
  Snapshot(const Snapshot&) = delete;
  Snapshot& operator=(const Snapshot&) = delete;

  // Writes it to a file, of mode 0600: under another name first, which takes the place of `path`
  // when everything is on the disk. On an error `path` is as it was. `cancelled` is asked now and
  // then. Errors: kResource when there is no room; kIo; kCancelled.
  Result<void> write(const std::string& path, const std::function<bool()>& cancelled = {}) const;

  // A machine that can go on from this: config().boot is this snapshot. Disks, networks and vsock
  // are there in their order, without backends: they are the caller's to give anew, as are
  // consoles.
  static VmConfig config(const std::shared_ptr<const Snapshot>& snapshot);

  // Of a file: what tells it from others, and what it is an increment of.
  struct File {
    std::string id;             // hexadecimal
    std::uint64_t stored = 0;   // bytes of memory that are in this very file
    std::string base, base_id;  // as the file names it; empty: none
  };
  // Nothing when it is not from a file.
  const std::optional<File>& file() const noexcept { return file_; }

  std::uint64_t memory() const noexcept;        // bytes of RAM that the machine has
  std::uint64_t stored_bytes() const noexcept;  // of these, what its files have
  // Reads all of memory, and compares checksums (of a file). Errors: kBadState.
  Result<void> verify() const;
  // Where the memory of two machines is not the same, in whole pages of 4 KiB, neighbours joined.
  // Errors: kBadConfig when they do not have RAM at the same addresses.
  Result<std::vector<GpaRange>> memory_difference(const Snapshot& other) const;
  // Everything but memory, for people and programs: an object.
  std::string to_json() const;

  // For the library.
  const SnapshotId& id() const noexcept { return id_; }  // of its file
  const WholeState& state() const noexcept { return *state_; }
  const RamImage& ram() const noexcept { return *ram_; }
  // What machines that go on from this share of decoded code; not null.
  const std::shared_ptr<interpreter::SharedLines>& decoded_lines() const;

 private:
  std::unique_ptr<const WholeState> state_;
  std::unique_ptr<const RamImage> ram_;
  SnapshotId id_ = {};
  std::optional<File> file_ = {};
  std::vector<QuirkOverride> quirks_;  // of this host; empty: to be probed
  mutable std::once_flag lines_made_;
  mutable std::shared_ptr<interpreter::SharedLines> lines_;
};

}  // namespace vmm
