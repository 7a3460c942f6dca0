// A disk in memory whose host misbehaves on request.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "base/event_fd.h"
#include "devices/block_backend.h"

namespace vmm::test {

// Requests are done in order by poll(), or stay under way while held. An injected error stands for
// what the host would answer to the next request of that kind.
class RamDisk final : public BlockBackend {
 public:
  explicit RamDisk(std::size_t size) : bytes(size) { limits_.size = size; }

  std::vector<std::byte> bytes;
  std::vector<BlockOp> log;  // what was done, in order
  int durable = 0;           // of these, writes that had to be
  bool held = false;         // nothing ends: a host that hangs
  bool at_once = false;      // what is committed has ended then, as ready() tells
  bool quiet = false;        // set_quiet()

  void fail_next(BlockOp op, int error) { errors_[op].push_back(error); }
  BlockLimits& limits_to_change() { return limits_; }
  std::size_t under_way() const { return requests_.size(); }
  // What refresh_size() will find.
  void resize(std::size_t size) { bytes.resize(size); }

  BlockLimits limits() const noexcept override { return limits_; }
  void submit(BlockRequest request) override { requests_.push_back(std::move(request)); }
  void commit() override {
    committed_ = requests_.size();
    if (!requests_.empty()) tell();
  }
  void set_quiet(bool wanted) override {
    quiet = wanted;
    if (committed_ != 0) tell();
  }
  bool ready() const noexcept override { return at_once && !held && committed_ != 0; }
  void poll() override {
    if (event_) (void)event_->take();
    if (!held) drain();
  }
  int event_fd() const noexcept override {
    if (!event_) {
      event_ = EventFd::create().value();
      if (committed_ != 0) tell();
    }
    return event_->fd();
  }
  void drain() override {
    committed_ = 0;
    while (!requests_.empty()) {
      const BlockRequest request = std::move(requests_.front());
      requests_.pop_front();
      const int error = run(request);
      if (request.client != nullptr) request.client->block_done(request.tag, error);
    }
  }
  Result<void> refresh_size() override {
    limits_.size = bytes.size();
    return {};
  }

 private:
  void tell() const {
    if (event_ && !held && !quiet) event_->signal();
  }
  int run(const BlockRequest& request) {
    log.push_back(request.op);
    if (request.durable) ++durable;
    if (auto& errors = errors_[request.op]; !errors.empty()) {
      const int error = errors.front();
      errors.pop_front();
      return error;
    }
    if (request.op == BlockOp::kFlush || request.op == BlockOp::kDiscard) return 0;
    std::byte* at = bytes.data() + request.offset;
    if (request.op == BlockOp::kWriteZeroes) std::fill_n(at, request.length, std::byte{0});
    for (const iovec& buffer : request.buffers) {
      if (request.op == BlockOp::kRead) {
        std::memcpy(buffer.iov_base, at, buffer.iov_len);
      } else {
        std::memcpy(at, buffer.iov_base, buffer.iov_len);
      }
      at += buffer.iov_len;
    }
    return 0;
  }

  mutable std::optional<EventFd> event_;  // made for who asks: most tests poll
  BlockLimits limits_;
  std::deque<BlockRequest> requests_;
  std::size_t committed_ = 0;
  std::map<BlockOp, std::deque<int>> errors_;
};

}  // namespace vmm::test
