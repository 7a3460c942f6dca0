// Requests to a disk whose end is waited for, for tests.
#pragma once

#include <poll.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <numeric>
#include <optional>
#include <vector>

#include "devices/block_backend.h"

namespace vmm::test {

using Bytes = std::vector<std::byte>;

// Bytes that differ from place to place and from seed to seed.
inline Bytes pattern(std::size_t size, unsigned seed) {
  Bytes bytes(size);
  for (std::size_t i = 0; i < size; ++i) {
    bytes[i] = static_cast<std::byte>((i * 7 + i / 512 * 31 + seed * 101 + 1) & 0xff);
  }
  return bytes;
}

// Remembers how requests ended.
class RecordingClient final : public BlockClient {
 public:
  void block_done(std::uint64_t tag, int error) override { ended_[tag] = error; }
  std::optional<int> result(std::uint64_t tag) const {
    const auto found = ended_.find(tag);
    return found == ended_.end() ? std::nullopt : std::optional<int>(found->second);
  }

 private:
  std::map<std::uint64_t, int> ended_;
};

// Memory in pieces of the given sizes, each at an address that is off by `skew`.
class Pieces {
 public:
  explicit Pieces(const std::vector<std::size_t>& sizes, std::size_t skew = 0) {
    for (const std::size_t size : sizes) {
      memory_.emplace_back(size + skew + 4096);
      const auto start = reinterpret_cast<std::uintptr_t>(memory_.back().data());
      const std::size_t pad = (4096 - start % 4096) % 4096 + skew;
      buffers_.push_back({memory_.back().data() + pad, size});
    }
  }
  const std::vector<iovec>& buffers() const { return buffers_; }
  std::size_t size() const {
    return std::accumulate(buffers_.begin(), buffers_.end(), std::size_t{0},
                           [](std::size_t sum, const iovec& v) { return sum + v.iov_len; });
  }
  void fill(const Bytes& bytes) {
    std::size_t at = 0;
    for (const iovec& v : buffers_) {
      std::memcpy(v.iov_base, bytes.data() + at, v.iov_len);
      at += v.iov_len;
    }
  }
  Bytes bytes() const {
    Bytes all;
    for (const iovec& v : buffers_) {
      const auto* const p = static_cast<const std::byte*>(v.iov_base);
      all.insert(all.end(), p, p + v.iov_len);
    }
    return all;
  }

 private:
  std::vector<Bytes> memory_;
  std::vector<iovec> buffers_;
};

// One request at a time. Waits as an event loop does: for the descriptor.
class DiskIo {
 public:
  explicit DiskIo(BlockBackend& disk) : disk_(disk) {}

  // The errno value that the request ended with; 0 is success.
  int run(BlockRequest request) {
    request.client = &client_;
    request.tag = ++tag_;
    disk_.submit(std::move(request));
    disk_.commit();
    while (!client_.result(tag_)) {
      pollfd wait{disk_.event_fd(), POLLIN, 0};
      (void)::poll(&wait, 1, -1);
      disk_.poll();
    }
    return *client_.result(tag_);
  }
  int write(std::uint64_t offset, const Bytes& bytes) {
    Pieces pieces({bytes.size()});
    pieces.fill(bytes);
    return run({.op = BlockOp::kWrite,
                .offset = offset,
                .length = bytes.size(),
                .buffers = pieces.buffers()});
  }
  int write_durably(std::uint64_t offset, const Bytes& bytes) {
    Pieces pieces({bytes.size()});
    pieces.fill(bytes);
    return run({.op = BlockOp::kWrite,
                .offset = offset,
                .length = bytes.size(),
                .buffers = pieces.buffers(),
                .durable = true});
  }
  // Empty when the read failed.
  Bytes read(std::uint64_t offset, std::size_t size) {
    Pieces pieces({size});
    const int error =
        run({.op = BlockOp::kRead, .offset = offset, .length = size, .buffers = pieces.buffers()});
    return error == 0 ? pieces.bytes() : Bytes();
  }
  int read_error(std::uint64_t offset, std::size_t size) {
    Pieces pieces({size});
    return run(
        {.op = BlockOp::kRead, .offset = offset, .length = size, .buffers = pieces.buffers()});
  }
  int flush() { return run({.op = BlockOp::kFlush}); }
  int discard(std::uint64_t offset, std::uint64_t length) {
    return run({.op = BlockOp::kDiscard, .offset = offset, .length = length});
  }
  int zero(std::uint64_t offset, std::uint64_t length, bool may_unmap = false) {
    return run(
        {.op = BlockOp::kWriteZeroes, .offset = offset, .length = length, .may_unmap = may_unmap});
  }

 private:
  BlockBackend& disk_;
  RecordingClient client_;
  std::uint64_t tag_ = 0;
};

}  // namespace vmm::test
