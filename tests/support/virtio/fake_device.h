// A virtio device with two queues and a little configuration space that does what a test wants.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "devices/state_io.h"
#include "devices/virtio/device.h"

namespace vmm::test {

class FakeDevice final : public virtio::Device {
 public:
  static constexpr std::uint64_t kFeature = 1ULL << 3;
  static constexpr std::uint64_t kNeedsFeature = 1ULL << 4;  // only together with kFeature
  static constexpr std::uint32_t kConfigSize = 10;

  struct State {
    static constexpr StateId kId{"fake_virtio", 1};
    std::array<std::uint8_t, kConfigSize> config{};
    std::vector<virtio::Chain> kept;
    bool operator==(const State&) const = default;
    static void fields(auto&& f) {
      f("config", &State::config);
      f("kept", &State::kept);
    }
  };

  explicit FakeDevice(std::string id) : id_(std::move(id)) {}

  // What a test sets and looks at.
  bool keep = false;              // requests stay in flight until finish_kept()
  bool answer_at_resume = false;  // what was in flight is answered before resume() returns
  bool reset_at_once = true;      // otherwise finish_reset() has to be called
  std::uint64_t activated_with = 0;
  int processed = 0;
  std::vector<std::uint16_t> queues_reset;
  std::vector<virtio::Chain> kept;

  void change_config() {
    ++config_[0];
    host().config_changed();
  }
  void finish_kept() {
    for (const virtio::Chain& chain : kept) host().queue(1).push_used(chain, 0);
    kept.clear();
    host().used(1);
  }
  void finish_reset() { host().reset_finished(); }

  std::string_view id() const noexcept override { return id_; }
  virtio::DeviceType type() const noexcept override { return virtio::DeviceType::kEntropy; }
  std::uint64_t features() const noexcept override { return kFeature | kNeedsFeature; }
  bool accepts(std::uint64_t features) const noexcept override {
    return (features & kNeedsFeature) == 0 || (features & kFeature) != 0;
  }
  std::span<const std::uint16_t> queue_sizes() const noexcept override { return kQueues; }
  std::uint32_t config_size() const noexcept override { return kConfigSize; }
  void read_config(std::uint32_t offset, std::span<std::byte> data) const override {
    for (std::size_t i = 0; i < data.size(); ++i) data[i] = std::byte{config_[offset + i]};
  }
  void write_config(std::uint32_t offset, std::span<const std::byte> data) override {
    for (std::size_t i = 0; i < data.size(); ++i) {
      config_[offset + i] = std::to_integer<std::uint8_t>(data[i]);
    }
  }
  void activate(std::uint64_t features) override { activated_with = features; }
  bool process(std::uint16_t queue) override {
    ++processed;
    const bool more = drain(queue, chain_, [&](const virtio::Chain& chain) {
      if (keep && queue == 1) {
        kept.push_back(chain);
      } else {
        host().queue(queue).push_used(chain, 0);
      }
    });
    host().used(queue);
    return more;
  }
  bool reset() override {
    config_ = {};
    kept.clear();  // a pending reset is saved as done
    return reset_at_once;
  }
  bool reset_queue(std::uint16_t queue) override {
    queues_reset.push_back(queue);
    if (queue == 1) kept.clear();
    return true;
  }
  void save(StateWriter& writer) const override {
    State state;
    state.config = config_;
    state.kept = kept;
    writer.put(state);
  }
  Result<void> restore(const StateReader& reader, bool, std::uint64_t) override {
    State state = VMM_TRY(reader.get<State>());
    for (virtio::Chain& chain : state.kept) VMM_TRY(host().queue(1).readmit(chain));
    config_ = state.config;
    kept = std::move(state.kept);
    return {};
  }
  void resume() override {
    if (answer_at_resume) finish_kept();
  }

 private:
  static constexpr std::array<std::uint16_t, 2> kQueues{8, 16};
  std::string id_;
  std::array<std::uint8_t, kConfigSize> config_{};
  virtio::Chain chain_;
};

}  // namespace vmm::test
