#include "base/replaced_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <utility>

namespace vmm {
namespace {

std::string directory_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

Result<ReplacedFile> ReplacedFile::create(const std::string& path) {
  std::string temporary = path + ".XXXXXX";
  UniqueFd file(::mkostemp(temporary.data(), O_CLOEXEC));  // mode 0600
  if (!file) return fail_errno(errno, "Create {}", temporary);
  return ReplacedFile(path, std::move(temporary), std::move(file));
}

ReplacedFile::ReplacedFile(ReplacedFile&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_(std::exchange(other.temporary_, {})),
      file_(std::move(other.file_)) {}

ReplacedFile::~ReplacedFile() {
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

Result<UniqueFd> ReplacedFile::duplicate() const {
  UniqueFd copy(::fcntl(file_.get(), F_DUPFD_CLOEXEC, 0));
  if (!copy) return fail_errno(errno, "Duplicate the descriptor of {}", temporary_);
  return copy;
}

Result<void> ReplacedFile::commit() {
  // On the disk before it is the file, and the name, too, before anybody is told.
  if (::fsync(file_.get()) != 0) return fail_errno(errno, "Write {} to the disk", temporary_);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
    return fail_errno(errno, "Rename {} to {}", temporary_, path_);
  }
  temporary_.clear();
  const UniqueFd directory(::open(directory_of(path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory || ::fsync(directory.get()) != 0) {
    return fail_errno(errno, "Write the directory of {} to the disk", path_);
  }
  return {};
}

}  // namespace vmm
