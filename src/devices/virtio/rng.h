// Virtio entropy device: VIRTIO 1.2, section 5.4.
//
// Fills what the driver offers with bytes from the host's kernel. One queue, no features, no
// configuration space.
// Threats: a driver may ask for 4 GiB at once, and as often as it likes: one request gets at most
// kMostBytes (the section allows fewer bytes than there is room for, but at least one).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "devices/state_id.h"
#include "devices/virtio/device.h"

namespace vmm::virtio {

class Rng final : public Device {
 public:
  static constexpr std::uint16_t kQueueSize = 64;
  static constexpr std::uint64_t kMostBytes = 4096;

  struct State {
    static constexpr StateId kId{"virtio_rng", 1};
    std::uint64_t bytes = 0;  // given out since power-on
    bool operator==(const State&) const = default;
    static void fields(auto&& f) { f("bytes", &State::bytes); }
  };
  // Fills the span with random bytes; must not wait.
  using Source = std::function<void(std::span<std::byte>)>;

  Rng(std::string id, Source source);
  // Its bytes follow from the seed and from how many it has given out: the same in every run, and
  // in a machine that goes on from a snapshot. No secrets may come of them.
  Rng(std::string id, std::uint64_t seed);

  const State& state() const noexcept { return s_; }

  std::string_view id() const noexcept override { return id_; }
  DeviceType type() const noexcept override { return DeviceType::kEntropy; }
  std::span<const std::uint16_t> queue_sizes() const noexcept override { return kQueues; }
  void activate(std::uint64_t features) override;
  bool process(std::uint16_t queue) override;
  bool reset() override;
  void save(StateWriter& writer) const override;
  Result<void> restore(const StateReader& reader, bool active, std::uint64_t features) override;

 private:
  static constexpr std::array<std::uint16_t, 1> kQueues{kQueueSize};
  void answer(const Chain& chain);
  void fill(std::uint64_t given, std::span<std::byte> bytes) const;

  State s_;
  std::string id_;
  Source source_;  // none with a seed
  std::uint64_t seed_ = 0;
  Chain chain_;  // its memory is used again for each request
};

}  // namespace vmm::virtio
