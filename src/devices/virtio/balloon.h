// Virtio memory balloon: VIRTIO 1.2, section 5.5.
//
// Emulated: inflation, deflation, statistics, free page reporting; features MUST_TELL_HOST,
// STATS_VQ, DEFLATE_ON_OOM, PAGE_REPORTING. Not emulated: free page hints, poisoned pages.
//
// Pages that the driver gives go back to the host and read as zeroes from then on. Nothing is kept
// about them: a page that comes out of the balloon is there again when it is touched.
//
// Threats: any page number, any range, as often as the driver likes: what is no RAM is counted and
// left alone, a turn makes a bounded number of system calls on a bounded number of bytes, and what
// a request still has to do then waits for the next turn. Numbers that the driver tells (how large
// the balloon is, statistics) are passed on and decide nothing.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/le.h"
#include "base/size.h"
#include "devices/state_id.h"
#include "devices/virtio/device.h"

namespace vmm::virtio {

class Balloon final : public Device {
 public:
  static constexpr std::uint64_t kPageSize =
      4096;  // section 5.5.6: whatever the driver's pages are
  static constexpr std::uint16_t kQueueSize = 128;
  // Section 5.5.2. Linux leaves out the queues of features that were not negotiated and counts on:
  // which one has the reports is settled when the driver is ready.
  static constexpr std::uint16_t kInflate = 0, kDeflate = 1, kStats = 2, kReporting = 4;
  static constexpr std::uint32_t kConfigSize = 8;
  // What one turn may cost.
  static constexpr std::uint32_t kMostCalls = 1024;
  static constexpr std::uint64_t kMostBytes = MiB(64);

  // Section 5.5.3.
  static constexpr std::uint64_t kMustTellHost = 1ULL << 0;
  static constexpr std::uint64_t kStatsVq = 1ULL << 1;
  static constexpr std::uint64_t kDeflateOnOom = 1ULL << 2;
  static constexpr std::uint64_t kPageReporting = 1ULL << 5;

  // Section 5.5.6.3, by tag.
  static constexpr std::array<std::string_view, 10> kStatNames{
      "swap_in", "swap_out",  "major_faults", "minor_faults",          "free",
      "total",   "available", "caches",       "huge_page_allocations", "huge_page_failures"};

  // A request of which a part is done.
  struct Work {
    Chain chain = {};
    std::uint64_t done = 0;  // bytes of its readable or writable part
    bool operator==(const Work&) const = default;
    static void fields(auto&& f) {
      f("chain", &Work::chain);
      f("done", &Work::done);
    }
  };
  struct State {
    static constexpr StateId kId{"virtio_balloon", 1};
    std::uint32_t target = 0;           // pages that the host wants in the balloon
    std::uint32_t actual = 0;           // pages that the driver says are in it
    std::uint16_t reporting_queue = 0;  // 0: none
    std::optional<Work> inflating = {};
    std::optional<Work> reporting = {};
    std::optional<Chain> stats_buffer = {};  // goes back to the driver to ask for new ones
    std::array<std::optional<std::uint64_t>, kStatNames.size()> stats = {};
    bool operator==(const State&) const = default;
    static void fields(auto&& f) {
      f("target", &State::target);
      f("actual", &State::actual);
      f("reporting_queue", &State::reporting_queue);
      f("inflating", &State::inflating);
      f("reporting", &State::reporting);
      f("stats_buffer", &State::stats_buffer);
      f("stats", &State::stats);
    }
  };
  struct Options {
    std::uint64_t size = 0;  // bytes that the balloon is to have; in pages of kPageSize
    bool deflate_on_oom = false;
    bool free_page_reporting = false;
    bool statistics = false;
  };
  // Since creation.
  struct Counters {
    std::uint64_t inflated_bytes = 0;  // given back to the host from the balloon
    std::uint64_t reported_bytes = 0;  // given back of what was reported free
    std::uint64_t refused_pages = 0;   // no RAM, or the host did not take them
    std::uint64_t stats_received = 0;  // how often
  };

  Balloon(std::string id, const Options& options);

  // How large the balloon is to be from now on, in bytes; tells the driver.
  void set_target(std::uint64_t bytes);
  std::uint64_t target() const noexcept { return s_.target * kPageSize; }
  // How large it is by the driver's account, in bytes.
  std::uint64_t actual() const noexcept { return s_.actual * kPageSize; }
  // Asks the driver for new statistics. Without an effect while it has not answered the last time.
  void request_stats();

  const State& state() const noexcept { return s_; }
  const Counters& counters() const noexcept { return counters_; }

  std::string_view id() const noexcept override { return id_; }
  DeviceType type() const noexcept override { return DeviceType::kBalloon; }
  std::uint64_t features() const noexcept override { return offered_; }
  std::span<const std::uint16_t> queue_sizes() const noexcept override { return queue_sizes_; }
  std::uint32_t config_size() const noexcept override { return kConfigSize; }
  void read_config(std::uint32_t offset, std::span<std::byte> data) const override;
  void write_config(std::uint32_t offset, std::span<const std::byte> data) override;
  void activate(std::uint64_t features) override;
  bool process(std::uint16_t queue) override;
  bool reset() override;
  bool reset_queue(std::uint16_t queue) override;
  void save(StateWriter& writer) const override;
  Result<void> restore(const StateReader& reader, bool active, std::uint64_t features) override;

 private:
  struct Turn;
  bool has(std::uint64_t feature) const noexcept { return (negotiated_ & feature) != 0; }
  bool is_stats(std::uint16_t queue) const noexcept { return queue == kStats && has(kStatsVq); }

  // Does what waits in a queue, as far as a turn goes; whether something is left.
  template <typename Step>
  bool give_back(std::uint16_t queue, std::optional<Work>& work, Step step);
  // A part of one request each; whether the request is done.
  bool inflate(Work& work, Turn& turn);
  bool report(Work& work, Turn& turn);
  // Gives pages back, counted in `bytes`.
  void discard(std::uint64_t address, std::uint64_t size, std::uint64_t& bytes);
  void take_stats(Chain& chain);

  State s_;
  const std::string id_;
  const std::uint64_t offered_;
  const std::vector<std::uint16_t> queue_sizes_;
  Counters counters_;
  std::uint64_t negotiated_ = 0;  // 0: no driver is at work

  // Their memory is used again for each request.
  Chain chain_;
  std::vector<Le32> numbers_;
  std::vector<std::uint32_t> pages_;
};

}  // namespace vmm::virtio
