#include "base/replaced_file.h"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <utility>

namespace vmm {
namespace {

std::string directory_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

// The name by which a file without one can be given one (open(2), O_TMPFILE). /proc may be missing.
std::string name_in_proc(int fd) { return "/proc/self/fd/" + std::to_string(fd); }

UniqueFd open_without_name(const std::string& path) {
  UniqueFd file(::open(directory_of(path).c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (!file || ::access(name_in_proc(file.get()).c_str(), F_OK) != 0) return {};
  return file;
}

// Gives a file without a name one beside `path` that nobody else has: that name, or nothing and
// errno.
std::string link_beside(const std::string& path, int fd) {
  constexpr std::string_view kLetters = "abcdefghijklmnopqrstuvwxyz0123456789";
  constexpr int kAttempts = 100;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    std::array<unsigned char, 6> random{};
    if (::getrandom(random.data(), random.size(), 0) < 0) return {};
    std::string name = path + ".";
    for (const unsigned char byte : random) name += kLetters[byte % kLetters.size()];
    if (::linkat(AT_FDCWD, name_in_proc(fd).c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) ==
        0) {
      return name;
    }
    if (errno != EEXIST) return {};
  }
  return {};
}

}  // namespace

Result<ReplacedFile> ReplacedFile::create(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode)) {
    return fail(ErrorCode::kIo, "{} is no file that can be replaced: it is a {}", path,
                S_ISDIR(status.st_mode) ? "directory" : "device, pipe or socket");
  }
  if (UniqueFd file = open_without_name(path)) return ReplacedFile(path, {}, std::move(file));
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
  if (!copy) return fail_errno(errno, "Duplicate the descriptor of {}", path_);
  return copy;
}

Result<void> ReplacedFile::commit() {
  // On the disk before it is the file, and the name, too, before anybody is told.
  if (::fsync(file_.get()) != 0) return fail_errno(errno, "Write {} to the disk", path_);
  if (temporary_.empty()) {
    temporary_ = link_beside(path_, file_.get());
    if (temporary_.empty()) return fail_errno(errno, "Give {} its name", path_);
  }
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
