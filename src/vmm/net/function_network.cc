#include "vmm/net/function_network.h"

#include <cstring>
#include <utility>

#include "vmm/net/frame_pieces.h"

namespace vmm {

Result<std::unique_ptr<FunctionNetwork>> FunctionNetwork::create(OnFrame on_frame) {
  EventFd event = VMM_TRY(EventFd::create());
  return std::unique_ptr<FunctionNetwork>(
      new FunctionNetwork(std::move(on_frame), std::move(event)));
}

// Readable while there is something to do, and not otherwise.
void FunctionNetwork::settle() {
  if (wanted_ && !frames_.empty()) {
    event_.signal();
  } else {
    (void)event_.take();
  }
}

bool FunctionNetwork::push(std::span<const std::byte> frame) {
  if (frame.empty() || frame.size() > kMostFrame) return false;
  std::lock_guard<std::mutex> lock(mutex_);
  if (frames_.size() >= kMostFrames) return false;
  frames_.emplace_back(frame.begin(), frame.end());
  settle();
  return true;
}

// The guest was offered no offloads: the header has nothing to say.
bool FunctionNetwork::send(const NetHeader&, std::span<const ::iovec> frame) {
  if (on_frame_) on_frame_(gather(frame));
  return true;
}

std::optional<std::size_t> FunctionNetwork::receive(NetHeader& header,
                                                    std::span<const ::iovec> into) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (frames_.empty()) return std::nullopt;
  const std::vector<std::byte> frame = std::move(frames_.front());
  frames_.pop_front();
  settle();
  header = {};
  return scatter(frame, into);
}

void FunctionNetwork::want_frames(bool wanted) {
  std::lock_guard<std::mutex> lock(mutex_);
  wanted_ = wanted;
  settle();
}

}  // namespace vmm
