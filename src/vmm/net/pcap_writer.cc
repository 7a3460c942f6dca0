#include "vmm/net/pcap_writer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/le.h"

namespace vmm {
namespace {

// draft-ietf-opsawg-pcap, sections 4 and 5; our byte order says the magic number.
struct FileHeader {
  Le32 magic = 0xa1b2'3c4d;  // nanoseconds
  Le16 major = 2;
  Le16 minor = 4;
  Le32 reserved1 = 0;
  Le32 reserved2 = 0;
  Le32 snap_length = PcapWriter::kSnapLength;
  Le32 link_type = 1;  // Ethernet
};
static_assert(sizeof(FileHeader) == 24);

struct RecordHeader {
  Le32 seconds;
  Le32 nanoseconds;
  Le32 captured;
  Le32 original;
};
static_assert(sizeof(RecordHeader) == 16);

}  // namespace

Result<PcapWriter> PcapWriter::create(const std::string& path) {
  // O_NONBLOCK: opening a pipe must not wait for its reader.
  UniqueFd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_APPEND | O_NONBLOCK, 0600));
  if (!file) return fail_errno(errno, "Create the capture file {}", path);
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) return fail_errno(errno, "Look at {}", path);
  if (!S_ISREG(status.st_mode)) {
    return fail(ErrorCode::kBadConfig, "The capture file {} is no plain file", path);
  }
  if (::ftruncate(file.get(), 0) != 0) return fail_errno(errno, "Empty the capture file {}", path);
  const FileHeader header;
  if (::write(file.get(), &header, sizeof header) != sizeof header) {
    return fail_errno(errno, "Write the capture file {}", path);
  }
  return PcapWriter(std::move(file), sizeof header);
}

void PcapWriter::write(std::chrono::nanoseconds utc, std::span<const ::iovec> pieces) {
  if (failed()) return;
  std::size_t size = 0;
  for (const ::iovec& piece : pieces) size += piece.iov_len;
  if (size > kSnapLength) return;
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(utc);
  RecordHeader header{
      .seconds = static_cast<std::uint32_t>(seconds.count()),
      .nanoseconds = static_cast<std::uint32_t>((utc - seconds).count()),
      .captured = static_cast<std::uint32_t>(size),
      .original = static_cast<std::uint32_t>(size),
  };
  std::array<::iovec, 1024> all;  // UIO_MAXIOV
  if (pieces.size() + 1 > all.size()) return;
  all[0] = {&header, sizeof header};
  std::copy(pieces.begin(), pieces.end(), all.begin() + 1);
  const ssize_t wanted = static_cast<ssize_t>(size + sizeof header);
  ssize_t written = 0;
  do {
    written = ::writev(file_.get(), all.data(), static_cast<int>(pieces.size() + 1));
  } while (written < 0 && errno == EINTR);
  if (written == wanted) {
    size_ += static_cast<std::uint64_t>(wanted);
    return;
  }
  if (written > 0) (void)!::ftruncate(file_.get(), static_cast<off_t>(size_));
  file_.reset();
}

}  // namespace vmm
