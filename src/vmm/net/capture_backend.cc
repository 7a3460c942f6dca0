#include "vmm/net/capture_backend.h"

#include <chrono>

namespace vmm {
namespace {

std::chrono::nanoseconds utc_now() { return std::chrono::system_clock::now().time_since_epoch(); }

}  // namespace

bool CaptureBackend::send(const NetHeader& header, std::span<const ::iovec> frame) {
  writer_->write(utc_now(), frame);  // before the answer to it
  return inner_->send(header, frame);
}

std::optional<std::size_t> CaptureBackend::receive(NetHeader& header, std::span<std::byte> into) {
  const std::optional<std::size_t> size = inner_->receive(header, into);
  if (size) {
    const ::iovec frame{into.data(), *size};
    writer_->write(utc_now(), {&frame, 1});
  }
  return size;
}

}  // namespace vmm
