#include "vmm/block/nbd_connection.h"

#include <poll.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <utility>

namespace vmm::block {
namespace {

constexpr nbd_completion_callback kNoCallback{};
// The largest logical block that guests can use: a page.
constexpr std::int64_t kMostMinimum = 4096;
constexpr std::int64_t kMostTransfer = 32 << 20;  // of a server that names no limit

// The library's text of what went wrong last, on this thread.
std::string text(const NbdLibrary& library) {
  const char* const error = library.get_error();
  return error != nullptr ? error : "unknown error";
}

}  // namespace

Result<std::unique_ptr<NbdConnection>> NbdConnection::connect(
    std::shared_ptr<const NbdLibrary> library, const std::string& uri) {
  nbd_handle* const handle = library->create();
  if (handle == nullptr) return fail(ErrorCode::kResource, "libnbd: {}", text(*library));
  std::unique_ptr<NbdConnection> connection(new NbdConnection(library, handle));
  // The URI is the user's own: it may name a file with keys.
  (void)library->set_uri_allow_local_file(handle, true);
  if (library->connect_uri(handle, uri.c_str()) != 0) {
    const bool wrong = library->get_errno() == EINVAL;
    return fail(wrong ? ErrorCode::kBadConfig : ErrorCode::kIo, "{}", text(*library));
  }
  return connection;
}

NbdConnection::~NbdConnection() { library_->close(handle_); }

NbdConnection::State NbdConnection::state() const {
  if (!problem_.empty()) return State::kLost;
  if (library_->is_ready(handle_) > 0 || library_->is_processing(handle_) > 0) return State::kUp;
  return library_->is_connecting(handle_) > 0 ? State::kConnecting : State::kLost;
}

int NbdConnection::fd() const { return library_->get_fd(handle_); }

short NbdConnection::events() const {
  const unsigned direction = library_->get_direction(handle_);
  int events = 0;
  if ((direction & LIBNBD_AIO_DIRECTION_READ) != 0) events |= POLLIN;
  if ((direction & LIBNBD_AIO_DIRECTION_WRITE) != 0) events |= POLLOUT;
  return static_cast<short>(events);
}

// One of both: the other may not be wanted any more afterwards.
void NbdConnection::ready(short events) {
  const unsigned direction = library_->get_direction(handle_);
  int result = 0;
  if ((events & (POLLIN | POLLHUP)) != 0 && (direction & LIBNBD_AIO_DIRECTION_READ) != 0) {
    result = library_->notify_read(handle_);
  } else if ((events & (POLLOUT | POLLERR | POLLHUP)) != 0 &&
             (direction & LIBNBD_AIO_DIRECTION_WRITE) != 0) {
    result = library_->notify_write(handle_);
  } else if ((events & (POLLERR | POLLHUP | POLLNVAL)) != 0) {
    problem_ = "the connection broke";
  }
  if (result != 0) {
    problem_ = text(*library_);
  } else if (problem_.empty() && state() == State::kLost) {
    problem_ = "the server closed the connection";
  }
}

Result<NbdExport> NbdConnection::offered() const {
  const std::int64_t size = library_->get_size(handle_);
  if (size < 0) return fail(ErrorCode::kIo, "{}", text(*library_));
  const auto block = [this](int which, std::int64_t otherwise) {
    const std::int64_t value = library_->get_block_size(handle_, which);
    return value > 0 ? value : otherwise;
  };
  const std::int64_t minimum = block(LIBNBD_SIZE_MINIMUM, 1);
  if (minimum > kMostMinimum || !std::has_single_bit(static_cast<std::uint64_t>(minimum))) {
    return fail(ErrorCode::kUnsupported,
                "the server takes whole blocks of {} bytes only, and a disk has at most {}",
                minimum, kMostMinimum);
  }
  const std::int64_t preferred = block(LIBNBD_SIZE_PREFERRED, 512);
  const bool sensible =
      preferred <= 1 << 20 && std::has_single_bit(static_cast<std::uint64_t>(preferred));
  return NbdExport{
      .size = static_cast<std::uint64_t>(size),
      .minimum = static_cast<std::uint32_t>(minimum),
      .preferred = static_cast<std::uint32_t>(std::max(minimum, sensible ? preferred : 512)),
      .maximum = static_cast<std::uint64_t>(
          std::clamp(block(LIBNBD_SIZE_MAXIMUM, kMostTransfer), kMostMinimum, kMostTransfer)),
      .read_only = library_->is_read_only(handle_) > 0,
      .flush = library_->can_flush(handle_) > 0,
      .trim = library_->can_trim(handle_) > 0,
      .zero = library_->can_zero(handle_) > 0};
}

std::int64_t NbdConnection::number(std::int64_t result) const {
  if (result > 0) return result;
  const int error = library_->get_errno();
  return -(error > 0 ? error : EIO);
}

std::int64_t NbdConnection::read(void* memory, std::uint64_t length, std::uint64_t offset) {
  return number(library_->pread(handle_, memory, length, offset, kNoCallback, 0));
}

std::int64_t NbdConnection::write(const void* memory, std::uint64_t length, std::uint64_t offset) {
  return number(library_->pwrite(handle_, memory, length, offset, kNoCallback, 0));
}

std::int64_t NbdConnection::zero(std::uint64_t length, std::uint64_t offset, bool may_unmap) {
  const std::uint32_t flags = may_unmap ? 0 : LIBNBD_CMD_FLAG_NO_HOLE;
  return number(library_->zero(handle_, length, offset, kNoCallback, flags));
}

std::int64_t NbdConnection::trim(std::uint64_t length, std::uint64_t offset) {
  return number(library_->trim(handle_, length, offset, kNoCallback, 0));
}

std::int64_t NbdConnection::flush() { return number(library_->flush(handle_, kNoCallback, 0)); }

NbdConnection::Ended NbdConnection::next_ended() {
  const std::int64_t command = library_->peek_completed(handle_);
  if (command <= 0) return {};
  const int result = library_->command_completed(handle_, static_cast<std::uint64_t>(command));
  if (result > 0) return {command, 0};
  const int error = library_->get_errno();
  return {command, error > 0 ? error : EIO};
}

void NbdConnection::say_goodbye() { (void)library_->disconnect(handle_, 0); }

}  // namespace vmm::block
