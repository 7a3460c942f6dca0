// A file that a guest sees as memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/result.h"

namespace vmm {

// Sole owner of a mapping of a file's first bytes, which starts at a multiple of 2 MiB. Touching it
// raises SIGBUS where the file has become shorter, or has no space left for a hole: only the kernel
// may, on somebody's behalf (KVM_RUN, process_vm_readv(2)). The contents stay out of core dumps.
class FileMapping {
 public:
  enum class Writes : std::uint8_t {
    kShared,   // go to the file
    kPrivate,  // stay in this mapping and end with it
    kNone,     // there are none: read-only
  };

  // `size`: a multiple of 2 MiB. The descriptor may be closed afterwards. Errors: what the kernel
  // refuses.
  static Result<std::shared_ptr<const FileMapping>> create(int fd, std::uint64_t size,
                                                           Writes writes);
  ~FileMapping();
  FileMapping(const FileMapping&) = delete;
  FileMapping& operator=(const FileMapping&) = delete;

  std::byte* hva() const noexcept { return hva_; }
  std::uint64_t size() const noexcept { return size_; }
  bool read_only() const noexcept { return writes_ == Writes::kNone; }

 private:
  FileMapping(std::byte* hva, std::uint64_t size, Writes writes)
      : hva_(hva), size_(size), writes_(writes) {}
  std::byte* hva_;
  std::uint64_t size_;
  Writes writes_;
};

}  // namespace vmm
