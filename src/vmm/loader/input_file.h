// A boot file on the host: opened, sized, and read by offset.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "vmm/loader/host_buffer.h"

namespace vmm::loader {

// Boot files are read, never mapped: a mapped file that somebody truncates kills the process with
// SIGBUS at the next touch, a read of it ends in an error.
class InputFile {
 public:
  // A regular file that is not empty and has at most `limit` bytes. Errors: kBadKernel with the
  // path and the reason.
  static Result<InputFile> open(const std::filesystem::path& path, std::uint64_t limit);

  const std::string& name() const noexcept { return name_; }
  std::uint64_t size() const noexcept { return size_; }  // bytes, when it was opened

  // Reads exactly bytes.size() bytes. Any thread. Errors: kBadKernel, also when the file has shrunk
  // since it was opened.
  Result<void> read_at(std::uint64_t offset, std::span<std::byte> bytes) const;
  // The whole file, as it was sized when it was opened. Errors: as read_at; kResource.
  Result<HostBuffer> read_all() const;

 private:
  InputFile(UniqueFd fd, std::string name, std::uint64_t size)
      : fd_(std::move(fd)), name_(std::move(name)), size_(size) {}
  UniqueFd fd_;
  std::string name_;
  std::uint64_t size_ = 0;
};

}  // namespace vmm::loader
