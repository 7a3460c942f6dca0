// A network made of functions: what the guest sends comes to one, and the program sends it frames.
//
//   auto network = FunctionNetwork::create([&](std::span<const std::byte> frame) { ... });
//   network->push(answer);
//
// Threats: frames are the guest's: of any content, up to NetBackend::kMostFrame bytes.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "base/event_fd.h"
#include "base/result.h"
#include "devices/net_backend.h"

namespace vmm {

class FunctionNetwork final : public NetBackend {
 public:
  // A frame of the guest's, a copy, valid during the call. Called on the thread of the interface's
  // work, with its device's lock held; it may push() answers.
  using OnFrame = std::function<void(std::span<const std::byte> frame)>;
  static constexpr std::size_t kMostFrames = 256;  // for the guest that wait for it

  // Errors: kResource or kIo, for want of a descriptor.
  static Result<std::unique_ptr<FunctionNetwork>> create(OnFrame on_frame);

  // A frame for the guest. Any thread. False when it is dropped: it has no bytes or too many, or
  // kMostFrames wait already.
  bool push(std::span<const std::byte> frame);

  bool send(const NetHeader& header, std::span<const ::iovec> frame) override;
  std::optional<std::size_t> receive(NetHeader& header, std::span<const ::iovec> into) override;
  int ready_fd() const noexcept override { return event_.fd(); }
  void want_frames(bool wanted) override;

 private:
  FunctionNetwork(OnFrame on_frame, EventFd event)
      : on_frame_(std::move(on_frame)), event_(std::move(event)) {}
  void settle();  // with the lock held

  const OnFrame on_frame_;
  EventFd event_;
  std::mutex mutex_;  // guards the rest
  std::deque<std::vector<std::byte>> frames_;
  bool wanted_ = true;
};

}  // namespace vmm
