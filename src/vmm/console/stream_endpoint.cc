#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <optional>

#include "vmm/console/console_endpoint.h"
#include "vmm/console/output_fd.h"

namespace vmm {
namespace {

class StreamEndpoint final : public ConsoleEndpoint {
 public:
  StreamEndpoint(int input, std::optional<OutputFd> output, UniqueFd file)
      : file_(std::move(file)), input_(input), output_(std::move(output)) {}

  Interest interest() const override {
    Interest interest;
    interest.readable = input_;
    interest.writable = output_ ? output_->fd() : -1;
    return interest;
  }

  Result<std::size_t> try_write(std::span<const std::byte> bytes) override {
    return output_ ? output_->try_write(bytes) : bytes.size();
  }

  Input read(std::span<std::byte> into) override {
    const ssize_t n = ::read(input_, into.data(), into.size());
    if (n > 0) return {static_cast<std::size_t>(n), false};
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return {};
    // The end of a pipe or file, or a terminal that was hung up: the guest simply gets no more.
    input_ = -1;
    return {0, true};
  }

 private:
  UniqueFd file_;  // what output_ borrows, when it is ours
  int input_;
  std::optional<OutputFd> output_;
};

}  // namespace

Result<std::unique_ptr<ConsoleEndpoint>> make_stream_endpoint(int input_fd, int output_fd) {
  std::optional<OutputFd> output;
  if (output_fd >= 0) output.emplace(VMM_TRY(OutputFd::borrow(output_fd)));
  return std::make_unique<StreamEndpoint>(input_fd, std::move(output), UniqueFd());
}

Result<std::unique_ptr<ConsoleEndpoint>> make_file_endpoint(const std::string& path) {
  // Non-blocking matters when the path names a FIFO or a terminal; a FIFO without a reader is
  // refused at once instead of keeping the program waiting.
  UniqueFd file(
      ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0644));
  if (!file) {
    const int errnum = errno;
    return fail_errno(errnum, "Open {} for output{}", path,
                      errnum == ENXIO ? " (a FIFO that nobody reads)" : "");
  }
  OutputFd output = VMM_TRY(OutputFd::borrow(file.get()));
  return std::make_unique<StreamEndpoint>(-1, std::move(output), std::move(file));
}

}  // namespace vmm
