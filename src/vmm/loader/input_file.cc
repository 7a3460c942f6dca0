#include "vmm/loader/input_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/size.h"

namespace vmm::loader {
namespace {

tl::unexpected<Error> bad_file(int errnum, std::string what) {
  return tl::unexpected<Error>(Error::from_errno(errnum, ErrorCode::kBadKernel, std::move(what)));
}

}  // namespace

Result<InputFile> InputFile::open(const std::filesystem::path& path, std::uint64_t limit) {
  const std::string name = path.string();
  // O_NONBLOCK: a FIFO must be refused below, not waited for here.
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return bad_file(errno, fmt::format("Open {}", name));
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) return bad_file(errno, fmt::format("Examine {}", name));
  if (!S_ISREG(status.st_mode)) {
    return fail(ErrorCode::kBadKernel, "{}: not a regular file", name);
  }
  if (status.st_size <= 0) return fail(ErrorCode::kBadKernel, "{}: the file is empty", name);
  const auto size = static_cast<std::uint64_t>(status.st_size);
  if (size > limit) {
    return fail(ErrorCode::kBadKernel, "{}: the file has {} bytes, more than the {} allowed", name,
                size, limit);
  }
  return InputFile(std::move(fd), name, size);
}

Result<void> InputFile::read_at(std::uint64_t offset, std::span<std::byte> bytes) const {
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n = ::pread(fd_.get(), bytes.data() + done, bytes.size() - done,
                              static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return bad_file(errno, fmt::format("Read {} at byte {}", name_, offset + done));
    if (n == 0) {
      return fail(ErrorCode::kBadKernel, "{}: the file ends at byte {}, it had {} when opened",
                  name_, offset + done, size_);
    }
    done += static_cast<std::size_t>(n);
  }
  return {};
}

Result<HostBuffer> InputFile::read_all() const {
  HostBuffer buffer =
      VMM_TRY(HostBuffer::create(static_cast<std::size_t>(size_), HostBuffer::Pages::kNow, name_));
  VMM_TRY(read_at(0, buffer.bytes()));
  return buffer;
}

}  // namespace vmm::loader
