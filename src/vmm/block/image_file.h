// A disk image on the host, opened and locked: a regular file or a block device.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace vmm::block {

struct ImageAccess {
  bool read_only = false;
  bool direct = false;  // past the host's page cache (O_DIRECT)
  // For messages: what it is, and the word that keeps a user's writes out of it.
  const char* noun = "Disk image";
  const char* aside = "cow";
};

// Holds an open-file-description lock for as long as it is open: shared by readers, or one writer's
// alone. Locks are advisory, and on file systems without them there is none (`locked()`).
class ImageFile {
 public:
  // Errors name the file and what to do: kBadConfig for what is no disk image or is in use, kIo.
  static Result<ImageFile> open(const std::string& path, const ImageAccess& access);
  // Takes over an open file that nobody else can reach: neither locked nor named.
  static ImageFile unnamed(UniqueFd fd, std::string name);

  const std::string& name() const noexcept { return name_; }
  int fd() const noexcept { return fd_.get(); }
  // The same file opened with O_DIRECT, or -1. Both stay coherent: the kernel sees to it.
  int direct_fd() const noexcept { return direct_.get(); }
  // What offset, length and memory must be multiples of with direct_fd().
  std::uint32_t direct_alignment() const noexcept { return direct_alignment_; }
  // What the host calls a block: 512 unless a device says otherwise.
  std::uint32_t block_size() const noexcept { return block_size_; }
  std::uint32_t physical_block() const noexcept { return physical_block_; }
  bool read_only() const noexcept { return access_.read_only; }
  bool locked() const noexcept { return locked_; }
  // Bytes, as of now. Errors: kIo.
  Result<std::uint64_t> size() const;

 private:
  ImageFile(UniqueFd fd, std::string name, ImageAccess access)
      : fd_(std::move(fd)), name_(std::move(name)), access_(access) {}
  Result<void> check_kind();
  Result<void> lock();
  Result<void> open_direct(const std::string& path);
  bool try_direct(std::uint32_t alignment) const;

  UniqueFd fd_, direct_;
  std::string name_;
  ImageAccess access_;
  bool locked_ = false;
  std::uint32_t direct_alignment_ = 512;
  std::uint32_t block_size_ = 512;
  std::uint32_t physical_block_ = 512;
};

}  // namespace vmm::block
