// A disk made of functions: for programs that have a disk's sectors themselves.
//
//   const auto read = [&](std::uint64_t offset, std::span<std::byte> bytes) { ...; return 0; };
//   auto disk = FunctionDisk::create(MiB(16), {.read = read});
//
// Threats: what is read and written, and when, is the guest's choice. Offset and length are within
// the disk; bytes to be written are copies, which nobody changes any more.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>

#include "base/event_fd.h"
#include "base/result.h"
#include "devices/block_backend.h"

namespace vmm::block {

class FunctionDisk final : public BlockBackend {
 public:
  // Called one at a time, on the thread of the disk's work, of the queue that has the request, with
  // its device's lock held: they are to be quick. A request comes in pieces of at most kPiece
  // bytes, in order. What they return is the guest's: 0, or an errno value, which ends the request.
  struct Handlers {
    // Without it the disk is all zeroes.
    std::function<int(std::uint64_t offset, std::span<std::byte> bytes)> read = {};
    // Without it the disk is read-only.
    std::function<int(std::uint64_t offset, std::span<const std::byte> bytes)> write = {};
    std::function<int()> flush = {};
    // The range's content does not matter any more; without it the disk takes no discards.
    std::function<int(std::uint64_t offset, std::uint64_t length)> discard = {};
  };
  static constexpr std::size_t kPiece = std::size_t{64} << 10;

  // `size`: bytes. Errors: kBadConfig when it is not a multiple of 512; kResource or kIo, for want
  // of a descriptor.
  static Result<std::unique_ptr<FunctionDisk>> create(std::uint64_t size, Handlers handlers);

  BlockLimits limits() const noexcept override;
  void submit(BlockRequest request) override { waiting_.push_back(std::move(request)); }
  void commit() override;
  void poll() override;
  int event_fd() const noexcept override { return event_.fd(); }
  bool ready() const noexcept override { return !waiting_.empty(); }
  void drain() override;
  Result<void> refresh_size() override { return {}; }

 private:
  FunctionDisk(std::uint64_t size, Handlers handlers, EventFd event)
      : size_(size), handlers_(std::move(handlers)), event_(std::move(event)) {}
  int carry_out(const BlockRequest& request) const;
  int transfer(const BlockRequest& request) const;
  int zero(const BlockRequest& request) const;

  const std::uint64_t size_;
  const Handlers handlers_;
  EventFd event_;
  std::deque<BlockRequest> waiting_;
};

}  // namespace vmm::block
