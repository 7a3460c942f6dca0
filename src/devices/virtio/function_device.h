// A virtio device made of functions: for programs that embed a machine and want one of their own
// (VirtioOwnConfig, docs/library.md).
//
// Requests come to a function, one chain at a time, which reads what the driver wrote and writes
// the answer: at once, or later with finish(). What has more to do derives from virtio::Device.
//
// Threats: what a request holds is the driver's. There are no more requests at a time than the
// queues have descriptors. One may name the same memory many times over, so that its length is no
// measure of what the driver owns: work is to be bounded by what the device is for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "devices/blob.h"
#include "devices/function_state.h"
#include "devices/state_id.h"
#include "devices/virtio/chain.h"
#include "devices/virtio/device.h"

namespace vmm::virtio {

class FunctionDevice final : public Device, public StateInFunctions {
 public:
  // Valid during the call that has it.
  struct Request {
    std::uint64_t token = 0;  // its name for finish(), unique in a device's life
    std::uint16_t queue = 0;
    ChainReader readable;  // what the driver wrote for the device
    ChainWriter writable;  // where the driver waits for an answer: what is written is the answer
  };
  enum class Answer : std::uint8_t {
    kNow,    // the request is done
    kLater,  // finish() comes
  };
  // Called on the event loop's thread, or that of a CPU; one call at a time, with the device's lock
  // held. They must not wait.
  struct Handlers {
    // Without it requests come back without an answer.
    std::function<Answer(FunctionDevice& self, Request& request)> request = {};
    // The driver is ready, with these of the features.
    std::function<void(FunctionDevice& self, std::uint64_t features)> activate = {};
    // The driver writes into the configuration space, which does not change by itself.
    std::function<void(FunctionDevice& self, std::uint32_t offset, std::span<const std::byte>)>
        write_config = {};
    // Power-on, or the driver's reset: there are no requests any more.
    std::function<void()> reset = {};
    // Besides requests and configuration space. A request that waits when the machine is saved
    // comes to `request` again in the one that goes on, with the same token.
    FunctionState state = {};
  };
  struct Options {
    DeviceType type{};           // any number of section 5, or one of one's own: 1 to 63
    std::uint64_t features = 0;  // bits 0 to 23 and 50 to 63
    std::vector<std::uint16_t> queue_sizes{64};  // powers of two
    std::vector<std::byte> config = {};          // configuration space
  };
  struct Kept {
    std::uint64_t token = 0;
    std::uint16_t queue = 0;
    Chain chain;
    bool operator==(const Kept&) const = default;
    static void fields(auto&& f) {
      f("token", &Kept::token);
      f("queue", &Kept::queue);
      f("chain", &Kept::chain);
    }
  };
  struct State {
    static constexpr StateId kId{"virtio_function_device", 1};
    Blob config;
    std::uint64_t next_token = 1;
    std::vector<Kept> kept;
    Blob bytes;  // Handlers::state
    bool operator==(const State&) const = default;
    static void fields(auto&& f) {
      f("config", &State::config);
      f("next_token", &State::next_token);
      f("kept", &State::kept);
      f("bytes", &State::bytes);
    }
  };

  // `id` is unique in a machine.
  FunctionDevice(std::string id, Options options, Handlers handlers);

  // --- With the device's lock held: in its functions, or in DeviceRef::with().
  // Answers a request that was kept, as `fill` does. False, and `fill` is not called, when there is
  // none of that token: its driver has forgotten it.
  bool finish(std::uint64_t token, const std::function<void(Request&)>& fill);
  std::size_t waiting() const noexcept { return kept_.size(); }
  // Changes the configuration space and tells the driver; what lies outside of it is dropped.
  void set_config(std::uint32_t offset, std::span<const std::byte> bytes);
  std::span<const std::byte> config() const noexcept { return config_; }
  // The device cannot go on: the driver is told to reset it.
  void break_down(std::string_view why) { host().needs_reset(why); }

  std::string_view id() const noexcept override { return id_; }
  DeviceType type() const noexcept override { return options_.type; }
  std::uint64_t features() const noexcept override { return options_.features; }
  std::span<const std::uint16_t> queue_sizes() const noexcept override {
    return options_.queue_sizes;
  }
  std::uint32_t config_size() const noexcept override {
    return static_cast<std::uint32_t>(config_.size());
  }
  void read_config(std::uint32_t offset, std::span<std::byte> data) const override;
  void write_config(std::uint32_t offset, std::span<const std::byte> data) override;
  void activate(std::uint64_t features) override;
  bool process(std::uint16_t queue) override;
  bool reset() override;
  bool reset_queue(std::uint16_t queue) override;
  void save(StateWriter& writer) const override;
  Result<void> restore(const StateReader& reader, bool active, std::uint64_t features) override;
  void resume() override;
  bool savable() const noexcept override { return handlers_.state.complete(); }

 private:
  using KeptByToken = std::map<std::uint64_t, Kept>;

  // Hands it to the program; true when it has been answered, and the chain is the driver's again.
  bool ask(std::uint64_t token, std::uint16_t queue, const Chain& chain);
  Result<KeptByToken> readmitted(const State& state, bool active);

  const std::string id_;
  const Options options_;
  const Handlers handlers_;
  std::vector<std::byte> config_;
  std::uint64_t next_token_ = 1;
  KeptByToken kept_;
  Chain chain_;  // its memory is used again for each request
};

}  // namespace vmm::virtio
