#include "vmm/vhost/peer_link.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <utility>
#include <vector>

#include "vmm/unix_listener.h"

namespace vmm::vhost {
namespace {

// Where distributions put it: Debian 12's qemu-system-common, and the package virtiofsd of later
// ones and of others.
constexpr std::array<const char*, 4> kPrograms{"/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd",
                                               "/usr/lib/virtiofsd", "/usr/bin/virtiofsd"};
// Which descriptor its socket is.
constexpr int kServerFd = ChildProcess::kSocket;

Result<UniqueFd> connect_to(const std::string& path) {
  const sockaddr_un address = VMM_TRY(unix_address(path));
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return fail_errno(errno, "Create a socket");
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return fail_errno(errno, "Connect to the vhost-user socket {}", path);
  }
  return fd;
}

// A name in a directory that nobody else can look into, for a moment.
class PrivateName {
 public:
  static Result<PrivateName> create() {
    PrivateName name;
    name.directory_ = "/tmp/vmm-share-XXXXXX";
    if (::mkdtemp(name.directory_.data()) == nullptr) {
      const int errnum = errno;
      name.directory_.clear();
      return fail_errno(errnum, "Make a directory in /tmp");
    }
    return name;
  }
  PrivateName(PrivateName&& other) noexcept : directory_(std::exchange(other.directory_, {})) {}
  PrivateName& operator=(PrivateName&&) = delete;
  ~PrivateName() {
    if (!directory_.empty()) ::rmdir(directory_.c_str());
  }
  std::string path() const { return directory_ + "/socket"; }

 private:
  PrivateName() = default;
  std::string directory_;
};

}  // namespace

Result<UniqueFd> SocketLink::connect() { return connect_to(path_); }

Result<std::unique_ptr<FileServerLink>> FileServerLink::create(std::string directory,
                                                               bool read_only) {
  std::string program;
  for (const char* const candidate : kPrograms) {
    if (program.empty() && ::access(candidate, X_OK) == 0) program = candidate;
  }
  if (program.empty()) {
    return fail(ErrorCode::kUnsupported,
                "There is no virtiofsd, which serves shared directories: install the package "
                "virtiofsd, or with Debian 12 qemu-system-common");
  }
  std::array<char, PATH_MAX> whole;
  if (::realpath(directory.c_str(), whole.data()) == nullptr) {
    return fail_errno(errno, "Look for the directory {}", directory);
  }
  struct stat status {};
  if (::stat(whole.data(), &status) != 0 || !S_ISDIR(status.st_mode)) {
    return fail(ErrorCode::kBadConfig, "{} is not a directory", directory);
  }
  return std::unique_ptr<FileServerLink>(
      new FileServerLink(std::move(program), whole.data(), read_only));
}

Result<UniqueFd> FileServerLink::connect() {
  child_.reset();
  // The server wants a socket that listens, and finds our connection waiting there.
  const PrivateName name = VMM_TRY(PrivateName::create());
  const UnixListener listener = VMM_TRY(UnixListener::create(name.path(), 1));
  UniqueFd ours = VMM_TRY(connect_to(name.path()));
  // A comma in a name would begin another of the server's options.
  std::string source = "source=";
  for (const char letter : directory_) {
    if (letter == ',' || letter == '\\') source += '\\';
    source += letter;
  }
  std::vector<std::string> words{
      program_, fmt::format("--fd={}", kServerFd), "-o", "log_level=err", "-o", source};
  child_ = VMM_TRY(
      ChildProcess::start({.words = std::move(words),
                           .socket = listener.fd(),
                           .read_only_directory = read_only_ ? directory_ : std::string()}));
  return ours;
}

}  // namespace vmm::vhost
