// A peer of a remote device that does what a test wants, in this process.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "devices/virtio/remote_peer.h"

namespace vmm::test {

class ScriptedPeer final : public virtio::RemotePeer {
 public:
  struct Request {
    std::uint16_t queue = 0;
    std::uint16_t slot = 0;
    virtio::Chain chain = {};
  };

  // What a test sets and looks at.
  std::uint64_t offered = ~std::uint64_t{0};
  std::vector<std::byte> told_config = std::vector<std::byte>(60);
  std::size_t room = 64;  // segments in each queue
  News news = {};
  std::vector<Request> requests;  // under way
  int starts = 0, stops = 0;
  std::uint64_t started_with = 0;
  bool patient = false;
  std::vector<std::uint16_t> restarts;
  std::vector<std::pair<std::uint32_t, std::vector<std::byte>>> written_config;

  void answer(std::size_t index, std::uint32_t written) {
    const Request request = requests[index];
    requests.erase(requests.begin() + static_cast<std::ptrdiff_t>(index));
    done_.push_back({request.queue, {request.slot, written}});
  }
  void answer_all(std::uint32_t written) {
    while (!requests.empty()) answer(0, written);
  }
  void go(State state) {
    news.state = state;
    if (state == State::kGone) requests.clear();
  }

  std::uint64_t features() const noexcept override { return offered; }
  std::uint16_t most_queues() const noexcept override { return 16; }
  std::string_view place() const noexcept override { return "here"; }
  std::size_t most_segments() const noexcept override { return room; }
  std::vector<std::byte> config() const override { return told_config; }
  void write_config(std::uint32_t offset, std::span<const std::byte> data) override {
    written_config.push_back({offset, {data.begin(), data.end()}});
  }
  void start(const GuestMemory&, std::uint64_t features, std::uint16_t, bool waits) override {
    ++starts;
    started_with = features;
    patient = waits;
    requests.clear();
    news.state = State::kStarting;
  }
  void stop() override {
    ++stops;
    requests.clear();
    news.state = State::kStopping;
  }
  void restart_queue(std::uint16_t queue) override {
    restarts.push_back(queue);
    std::erase_if(requests, [queue](const Request& r) { return r.queue == queue; });
  }
  News take_news() override {
    News taken = news;
    news.config_changed = false;
    news.restarted.clear();
    return taken;
  }
  std::optional<std::uint16_t> submit(std::uint16_t queue, const virtio::Chain& chain) override {
    std::size_t used = chain.segments.size();
    for (const Request& r : requests) used += r.queue == queue ? r.chain.segments.size() : 0;
    if (used > room) return std::nullopt;
    std::uint16_t slot = 0;
    const auto taken = [&] {
      for (const Request& r : requests) {
        if (r.queue == queue && r.slot == slot) return true;
      }
      return false;
    };
    while (taken()) ++slot;
    requests.push_back({queue, slot, chain});
    return slot;
  }
  void kick(std::uint16_t) override {}
  std::optional<Done> next_done(std::uint16_t queue) override {
    for (auto one = done_.begin(); one != done_.end(); ++one) {
      if (one->first != queue) continue;
      const Done done = one->second;
      done_.erase(one);
      return done;
    }
    return std::nullopt;
  }
  int ready_fd() const noexcept override { return -1; }
  void clear_ready() noexcept override {}

 private:
  std::vector<std::pair<std::uint16_t, Done>> done_;
};

}  // namespace vmm::test
