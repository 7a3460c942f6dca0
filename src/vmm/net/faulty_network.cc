#include "vmm/net/faulty_network.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "vmm/net/frame_pieces.h"

namespace vmm {
namespace {

using Direction = NetFault::Direction;
using Kind = NetFault::Kind;

bool is_hit(const NetFault& fault, std::uint64_t number) {
  return number >= fault.nth && number - fault.nth < fault.count;
}

}  // namespace

FaultyNetwork::FaultyNetwork(std::shared_ptr<NetBackend> network, std::vector<NetFault> faults,
                             std::uint64_t seed)
    : network_(std::move(network)), chances_(seed) {
  for (const NetFault& fault : faults) add(fault);
}

std::optional<NetFault> FaultyNetwork::fault_of(Direction direction) {
  std::optional<NetFault> first;
  for (Planned& planned : plan_) {
    const NetFault& fault = planned.fault;
    if (fault.direction != direction || !is_hit(fault, ++planned.seen)) continue;
    // Drawn for each fault, so that one does not change another's luck.
    const bool unlucky = std::uniform_real_distribution<double>(0, 1)(chances_) < fault.chance;
    if (unlucky && !first) first = fault;
  }
  hits_ += first ? 1 : 0;
  return first;
}

FaultyNetwork::Frames FaultyNetwork::passed(Frames& held) {
  Frames due;
  for (Frame& frame : held) {
    if (--frame.behind == 0) due.push_back(std::move(frame));
  }
  std::erase_if(held, [](const Frame& frame) { return frame.behind == 0; });
  return due;
}

bool FaultyNetwork::send_again(const Frame& frame) {
  ::iovec piece{const_cast<std::byte*>(frame.bytes.data()), frame.bytes.size()};
  return network_->send(frame.header, {&piece, 1});
}

bool FaultyNetwork::send(const NetHeader& header, std::span<const ::iovec> frame) {
  const std::optional<NetFault> fault = fault_of(Direction::kToHost);
  // What is lost on the way has been sent.
  if (fault && fault->kind == Kind::kLose) return true;
  if (fault && fault->kind == Kind::kReorder && fault->behind != 0 &&
      held_to_host_.size() < kMostHeld) {
    held_to_host_.push_back({header, gather(frame), fault->behind});
    return true;
  }
  const bool sent = network_->send(header, frame);
  if (fault && fault->kind == Kind::kDuplicate) network_->send(header, frame);
  for (const Frame& late : passed(held_to_host_)) send_again(late);
  return sent;
}

std::optional<std::size_t> FaultyNetwork::receive(NetHeader& header,
                                                  std::span<const ::iovec> into) {
  // So many that are lost in a row are enough for one call: ready_fd() tells of the rest.
  for (std::size_t looked = 0; looked < kMostHeld && ready_.empty(); ++looked) {
    std::vector<std::byte> bytes(kMostFrame);
    const ::iovec whole{bytes.data(), bytes.size()};
    const std::optional<std::size_t> size = network_->receive(header, {&whole, 1});
    if (!size) return std::nullopt;
    bytes.resize(*size);
    const std::optional<NetFault> fault = fault_of(Direction::kToGuest);
    if (fault && fault->kind == Kind::kLose) continue;
    Frame frame{header, std::move(bytes), 0};
    if (fault && fault->kind == Kind::kReorder && fault->behind != 0 &&
        held_to_guest_.size() < kMostHeld) {
      frame.behind = fault->behind;
      held_to_guest_.push_back(std::move(frame));
      continue;
    }
    if (fault && fault->kind == Kind::kDuplicate) ready_.push_back(frame);
    ready_.push_back(std::move(frame));
    for (Frame& late : passed(held_to_guest_)) ready_.push_back(std::move(late));
  }
  if (ready_.empty()) return std::nullopt;
  const Frame frame = std::move(ready_.front());
  ready_.pop_front();
  header = frame.header;
  return scatter(frame.bytes, into);
}

}  // namespace vmm
