// A guest's RAM as it is at one moment, while the guest goes on writing to it: copied page by page
// when it is written (copy-on-write), as fork(2) does it.
//
// The pages are held by a process that has nothing else of this one: it closes all files, writes
// pages to files that it is handed, and ends with this object, or with this process. The price is a
// page of the host's for each that is written meanwhile, and for the guest a fault for each.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "memory/guest_memory.h"

namespace vmm {

// Move-only; one thread at a time.
class FrozenMemory {
 public:
  // RAM that lies in one piece in this process.
  struct Piece {
    GpaRange range;
    const std::byte* hva = nullptr;
    int file = -1;  // what it is a mapping of, if others may map it as well
  };

  // The CPUs and devices are at rest until this returns. Errors: kUnsupported, saying why: memory
  // that is shared with other processes or has huge pages of hugetlbfs cannot be copied that way;
  // kResource.
  static Result<FrozenMemory> create(const GuestMemory& memory);

  FrozenMemory(FrozenMemory&& other) noexcept;
  FrozenMemory& operator=(FrozenMemory&& other) noexcept;
  ~FrozenMemory();

  // By address. The guest's memory itself may be gone by now.
  const std::vector<Piece>& pieces() const noexcept { return pieces_; }
  // The process that holds it, for what /proc says of its pages.
  pid_t process() const noexcept { return process_; }

  static constexpr std::uint32_t kMostPages = 256;
  // Bit n % 64 of word n / 64 is page n.
  using PageBits = std::array<std::uint64_t, kMostPages / 64>;
  // What write() writes to from here on; it need not stay open here. Errors: kIo.
  Result<void> set_file(int file) const;
  // Writes the pages, at most kMostPages of 4 KiB, that began at `from`, all in one piece, and are
  // not all zeroes; each to its place in the file, where the first one's is `offset`. Says which
  // these were. Errors: kIo, kResource: the file's.
  Result<PageBits> write(const std::byte* from, std::uint32_t pages, std::uint64_t offset) const;

 private:
  struct Request;
  struct Reply;
  FrozenMemory(std::vector<Piece> pieces, pid_t process, UniqueFd socket) noexcept
      : pieces_(std::move(pieces)), process_(process), socket_(std::move(socket)) {}
  // What the process does.
  [[noreturn]] static void serve(int socket, int other_end);
  static int answer(const Request& request, int file, Reply& reply);
  Result<PageBits> ask(const Request& request, int file) const;
  void end() noexcept;

  std::vector<Piece> pieces_;
  pid_t process_ = -1;
  UniqueFd socket_;  // the process ends when it is closed
};

}  // namespace vmm
