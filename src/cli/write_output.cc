#include "cli/write_output.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <memory>

namespace vmm::cli {
namespace {

constexpr mode_t kNewFileMode = 0644;

// Names of what is open already ("/dev/stdout", "/proc/self/fd/1"), which may be a regular file
// that others write to as well, and of devices.
bool names_a_stream(const std::string& path) {
  return path.starts_with("/dev/") || path.starts_with("/proc/");
}

Result<void> write_all(int fd, std::string_view text, const std::string& path) {
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "Write {}", path);
    text.remove_prefix(static_cast<std::size_t>(n));
  }
  return {};
}

}  // namespace

Result<OutputFile> OutputFile::open(const std::string& path) {
  OutputFile output(path == "-" ? "standard output" : path);
  if (path == "-") return output;
  struct stat status = {};
  const bool exists = ::stat(path.c_str(), &status) == 0;
  if (names_a_stream(path) || (exists && !S_ISREG(status.st_mode))) {
    output.stream_.reset(::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
    if (!output.stream_) return fail_errno(errno, "Open {}", path);
    return output;
  }
  // What a symbolic link names is replaced, not the link.
  const std::unique_ptr<char, void (*)(void*)> target(
      exists ? ::realpath(path.c_str(), nullptr) : nullptr, &std::free);
  output.replaced_.emplace(VMM_TRY(ReplacedFile::create(target ? target.get() : path)));
  const mode_t mode = exists ? status.st_mode & 07777 : kNewFileMode;
  if (::fchmod(output.replaced_->fd(), mode) != 0) return fail_errno(errno, "Create {}", path);
  return output;
}

Result<void> OutputFile::finish(std::string_view text) {
  if (!replaced_) return write_all(stream_ ? stream_.get() : STDOUT_FILENO, text, path_);
  VMM_TRY(write_all(replaced_->fd(), text, path_));
  return replaced_->commit();
}

Result<void> write_output(const std::string& path, std::string_view text) {
  OutputFile output = VMM_TRY(OutputFile::open(path));
  return output.finish(text);
}

}  // namespace vmm::cli
