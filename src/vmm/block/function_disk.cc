#include "vmm/block/function_disk.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

namespace vmm::block {

Result<std::unique_ptr<FunctionDisk>> FunctionDisk::create(std::uint64_t size, Handlers handlers) {
  if (size % kSectorSize != 0) {
    return fail(ErrorCode::kBadConfig,
                "A disk of {} bytes is not possible: choose a multiple of {}", size, kSectorSize);
  }
  EventFd event = VMM_TRY(EventFd::create());
  return std::unique_ptr<FunctionDisk>(
      new FunctionDisk(size, std::move(handlers), std::move(event)));
}

BlockLimits FunctionDisk::limits() const noexcept {
  return {.size = size_,
          .read_only = !handlers_.write,
          .discard = static_cast<bool>(handlers_.discard)};
}

void FunctionDisk::commit() {
  if (!waiting_.empty()) event_.signal();
}

void FunctionDisk::poll() {
  (void)event_.take();
  drain();
}

void FunctionDisk::drain() {
  while (!waiting_.empty()) {
    const BlockRequest request = std::move(waiting_.front());
    waiting_.pop_front();
    const int error = carry_out(request);
    if (request.client != nullptr) request.client->block_done(request.tag, error);
  }
}

int FunctionDisk::carry_out(const BlockRequest& request) const {
  const bool inside = request.offset <= size_ && request.length <= size_ - request.offset;
  switch (request.op) {
    case BlockOp::kFlush:
      return handlers_.flush ? handlers_.flush() : 0;
    case BlockOp::kDiscard:
      if (!inside) return EIO;
      return handlers_.discard ? handlers_.discard(request.offset, request.length) : 0;
    case BlockOp::kWriteZeroes:
      return inside ? zero(request) : EIO;
    case BlockOp::kRead:
    case BlockOp::kWrite:
      break;
  }
  return inside ? transfer(request) : EIO;
}

int FunctionDisk::zero(const BlockRequest& request) const {
  if (!handlers_.write) return EROFS;
  const std::vector<std::byte> zeroes(
      static_cast<std::size_t>(std::min<std::uint64_t>(kPiece, request.length)));
  for (std::uint64_t done = 0; done < request.length;) {
    const auto piece = std::span(zeroes).first(
        static_cast<std::size_t>(std::min<std::uint64_t>(zeroes.size(), request.length - done)));
    if (const int error = handlers_.write(request.offset + done, piece)) return error;
    done += piece.size();
  }
  return 0;
}

// Through a copy: the memory is the guest's, which may change it, and see what is half done.
int FunctionDisk::transfer(const BlockRequest& request) const {
  const bool is_write = request.op == BlockOp::kWrite;
  if (is_write && !handlers_.write) return EROFS;
  std::vector<std::byte> copy(
      static_cast<std::size_t>(std::min<std::uint64_t>(kPiece, request.length)));
  std::uint64_t at = request.offset;
  for (const iovec& buffer : request.buffers) {
    auto* const memory = static_cast<std::byte*>(buffer.iov_base);
    for (std::size_t done = 0; done < buffer.iov_len;) {
      const auto piece = std::span(copy).first(std::min(copy.size(), buffer.iov_len - done));
      int error = 0;
      if (is_write) {
        std::memcpy(piece.data(), memory + done, piece.size());
        error = handlers_.write(at, piece);
      } else {
        std::fill(piece.begin(), piece.end(), std::byte{0});
        error = handlers_.read ? handlers_.read(at, piece) : 0;
        if (error == 0) std::memcpy(memory + done, piece.data(), piece.size());
      }
      if (error != 0) return error;
      done += piece.size();
      at += piece.size();
    }
  }
  return 0;
}

}  // namespace vmm::block
