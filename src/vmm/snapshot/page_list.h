// Which pages of a snapshot's memory a machine has used, in the order in which it did: recorded by
// one machine that goes on from the snapshot, to be brought in beforehand for the next.
//
// A file of lines: "vmm page list 1", "snapshot ID", "pages N", and N numbers of pages.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"

namespace vmm {

class Snapshot;

// A value.
class PageList {
 public:
  // So many pages a list has at most; more are not recorded.
  static constexpr std::size_t kMost = std::size_t{1} << 22;

  PageList() = default;
  // Pages of 4 KiB, numbered as they lie in the memory of `snapshot`, without gaps between regions.
  PageList(const Snapshot& snapshot, std::vector<std::uint64_t> pages);

  // From a file, which is not trusted. Errors: kBadState saying what is wrong and in which line;
  // kIo.
  static Result<std::shared_ptr<const PageList>> read(const std::string& path);
  // To a file, which takes the place of `path` when it is complete and on the disk. Errors:
  // kUnsupported when the snapshot is not from a file, and so has no ID; kResource; kIo.
  Result<void> write(const std::string& path) const;

  const std::vector<std::uint64_t>& pages() const noexcept { return pages_; }
  // Whether it is of this very snapshot. Errors: kBadState saying of which, or which page that does
  // not have.
  Result<void> check_fits(const Snapshot& snapshot) const;

 private:
  std::string snapshot_;  // Snapshot::File::id; empty: of none in a file
  std::vector<std::uint64_t> pages_;
};

}  // namespace vmm
