#include "vmm/block/image_file.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstdlib>
#include <memory>

namespace vmm::block {
namespace {

constexpr std::uint32_t kMostAlignment = 4096;

tl::unexpected<Error> cannot_open(int error, const std::string& path, const ImageAccess& access) {
  switch (error) {
    case ENOENT:
      return fail(ErrorCode::kBadConfig,
                  "{} '{}' does not exist; 'truncate -s 1G {}' makes an empty one", access.noun,
                  path, path);
    case EISDIR:
      return fail(ErrorCode::kBadConfig, "{} '{}' is a directory", access.noun, path);
    case EACCES:
    case EPERM:
    case EROFS:
      if (!access.read_only) {
        return fail(ErrorCode::kBadConfig,
                    "{} '{}' may not be written: add ',ro' to only read it, or ',{}' to "
                    "keep writes elsewhere",
                    access.noun, path, access.aside);
      }
      [[fallthrough]];
    default:
      return tl::unexpected<Error>(
          Error::from_errno(error, ErrorCode::kBadConfig,
                            fmt::format("{} '{}' cannot be opened", access.noun, path)));
  }
}

struct Free {
  void operator()(void* p) const noexcept { std::free(p); }
};

}  // namespace

Result<ImageFile> ImageFile::open(const std::string& path, const ImageAccess& access) {
  // A FIFO must not be waited for; on what is taken in the end the flag has no effect.
  const int flags = (access.read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
  UniqueFd fd(::open(path.c_str(), flags));
  if (!fd) return cannot_open(errno, path, access);
  ImageFile image(std::move(fd), path, access);
  VMM_TRY(image.check_kind());
  VMM_TRY(image.lock());
  if (access.direct) VMM_TRY(image.open_direct(path));
  return image;
}

ImageFile ImageFile::unnamed(UniqueFd fd, std::string name) {
  return ImageFile(std::move(fd), std::move(name), ImageAccess{});
}

Result<void> ImageFile::check_kind() {
  struct stat status {};
  if (::fstat(fd_.get(), &status) != 0) return fail_errno(errno, "Look at '{}'", name_);
  if (S_ISBLK(status.st_mode)) {
    int logical = 0;
    unsigned physical = 0;
    if (::ioctl(fd_.get(), BLKSSZGET, &logical) == 0 && logical >= 512 &&
        std::has_single_bit(static_cast<unsigned>(logical))) {
      block_size_ = static_cast<std::uint32_t>(logical);
    }
    if (::ioctl(fd_.get(), BLKPBSZGET, &physical) == 0 && std::has_single_bit(physical)) {
      physical_block_ = std::max<std::uint32_t>(physical, block_size_);
    }
    return {};
  }
  if (!S_ISREG(status.st_mode)) {
    return fail(ErrorCode::kBadConfig, "{} '{}' is neither a regular file nor a block device",
                access_.noun, name_);
  }
  const auto preferred = static_cast<std::uint64_t>(status.st_blksize);
  if (std::has_single_bit(preferred) && preferred >= 512 && preferred <= kMostAlignment) {
    physical_block_ = static_cast<std::uint32_t>(preferred);
  }
  return {};
}

Result<void> ImageFile::lock() {
  struct flock whole {};
  whole.l_type = access_.read_only ? F_RDLCK : F_WRLCK;
  whole.l_whence = SEEK_SET;
  if (::fcntl(fd_.get(), F_OFD_SETLK, &whole) == 0) {
    locked_ = true;
    return {};
  }
  if (errno != EAGAIN && errno != EACCES) return {};  // a file system without locks
  if (access_.read_only) {
    return fail(ErrorCode::kBadConfig,
                "{} '{}' is in use: another virtual machine or program writes it. Wait for "
                "its end, or give each a copy",
                access_.noun, name_);
  }
  return fail(ErrorCode::kBadConfig,
              "{} '{}' is in use by another virtual machine or program. Only readers can "
              "share an image: give each of them ',ro' or ',{}'",
              access_.noun, name_, access_.aside);
}

bool ImageFile::try_direct(std::uint32_t alignment) const {
  const std::unique_ptr<void, Free> buffer(std::aligned_alloc(kMostAlignment, kMostAlignment));
  return buffer != nullptr && ::pread(direct_.get(), buffer.get(), alignment, 0) >= 0;
}

Result<void> ImageFile::open_direct(const std::string& path) {
  const int flags = (access_.read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_DIRECT;
  // Through /proc: the path may lead elsewhere by now.
  direct_.reset(::open(fmt::format("/proc/self/fd/{}", fd_.get()).c_str(), flags));
  for (direct_alignment_ = block_size_; direct_ && direct_alignment_ <= kMostAlignment;
       direct_alignment_ *= 2) {
    if (try_direct(direct_alignment_)) {
      block_size_ = direct_alignment_;
      physical_block_ = std::max(physical_block_, block_size_);
      return {};
    }
  }
  return fail(ErrorCode::kBadConfig,
              "Disk image '{}' is on a file system without direct I/O: leave ',direct' out", path);
}

Result<std::uint64_t> ImageFile::size() const {
  const off_t end = ::lseek(fd_.get(), 0, SEEK_END);
  if (end < 0) return fail_errno(errno, "Find the size of '{}'", name_);
  return static_cast<std::uint64_t>(end);
}

}  // namespace vmm::block
