// A guest's RAM as it is at one moment, while the guest goes on writing to it: copied page by page
// when it is written (copy-on-write), as fork(2) does it.
//
// The pages are held by a process that has nothing else of this one: it closes all files, does
// nothing, and ends with this object, or with this process. The price is a page of the host's for
// each that is written meanwhile, and for the guest a fault for each.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "memory/guest_memory.h"

namespace vmm {

// Move-only. Reading: any thread.
class FrozenMemory {
 public:
  // RAM that lies in one piece in this process.
  struct Piece {
    GpaRange range;
    const std::byte* hva = nullptr;
    int file = -1;  // what it is a mapping of, if others may map it as well
  };

  // The CPUs and devices are at rest until this returns. Errors: kUnsupported, saying why:
  // memory that is shared with other processes or has huge pages of hugetlbfs cannot be copied that
  // way, and this host may not let processes read their children's; kResource.
  static Result<FrozenMemory> create(const GuestMemory& memory);

  FrozenMemory(FrozenMemory&& other) noexcept;
  FrozenMemory& operator=(FrozenMemory&& other) noexcept;
  ~FrozenMemory();

  // By address. The guest's memory itself may be gone by now.
  const std::vector<Piece>& pieces() const noexcept { return pieces_; }
  // What was at `from`, in a piece, at that moment; all of it lies in that piece. Errors: kIo.
  Result<void> read(const std::byte* from, std::span<std::byte> bytes) const;
  // The process that holds it, for what /proc says of its pages.
  pid_t process() const noexcept { return process_; }

 private:
  FrozenMemory(std::vector<Piece> pieces, pid_t process, UniqueFd life) noexcept
      : pieces_(std::move(pieces)), process_(process), life_(std::move(life)) {}
  void end() noexcept;

  std::vector<Piece> pieces_;
  pid_t process_ = -1;
  UniqueFd life_;  // the process reads from it, and ends when it is closed
};

}  // namespace vmm
