// What is looked at while a run_until() runs the guest: exits, what COM1 sends, and what debugging
// reports. The first condition that is met becomes the reason to stop.
//
// Threats: the guest chooses all of it. Work for a byte or an exit is bounded by the conditions;
// what is kept is bounded.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "devices/sink.h"
#include "vmm/debug/target.h"
#include "vmm/run_until.h"
#include "vmm/stop_board.h"
#include "vmm/vcpu_exit.h"

namespace vmm {

// vCPU threads call on_exit() and on_stop(), COM1 write(); the rest is for the thread that runs the
// guest, while it stands.
class RunWatch final : public ByteSink {
 public:
  static constexpr std::size_t kConsoleLimit = std::size_t{64} << 10;
  static constexpr std::size_t kLineLimit = 1024;

  // Errors: kBadConfig naming the condition and what is wrong with it. `stops` is borrowed.
  static Result<std::unique_ptr<RunWatch>> create(StopBoard& stops,
                                                  const std::vector<Condition>& conditions);
  ~RunWatch() override;

  void on_exit(VcpuId vcpu, const VcpuExit& exit);
  // A breakpoint or a step.
  void on_stop(const debug::StopEvent& event);
  // COM1 has sent this; its lock is held.
  void write(std::span<const std::byte> bytes) override;

  // Which condition made the guest stop.
  std::optional<std::size_t> met() const;
  // What debugging reported, which made the guest stop; forgotten with that.
  std::optional<debug::StopEvent> take_event();
  // The last 64 KiB that COM1 has sent.
  std::string console() const;

 private:
  struct Text;
  struct Line;
  struct Exit;

  explicit RunWatch(StopBoard& stops);
  Result<void> add(std::size_t index, const Condition& condition);
  void meet(std::size_t index, VcpuId vcpu);  // mutex_ held
  void keep(std::span<const std::byte> bytes);

  StopBoard& stops_;
  mutable std::mutex mutex_;  // guards the next ones' progress and the rest
  std::vector<Text> texts_;
  std::vector<Line> lines_;
  std::string line_;  // that has not ended yet
  std::string console_;
  std::optional<std::size_t> met_;
  std::optional<debug::StopEvent> event_;
  // Constant while the guest runs.
  std::vector<Exit> exits_;
  struct Count {
    std::size_t index;
    std::uint64_t wanted;
  };
  std::vector<Count> counts_;
  std::atomic<std::uint64_t> exits_seen_{0};
};

}  // namespace vmm
