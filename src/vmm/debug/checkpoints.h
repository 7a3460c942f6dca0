// What a debugger can go back to: snapshots of the machine in memory, by name. Not thread-safe.
#pragma once

#include <chrono>
#include <cstddef>
#include <deque>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"

namespace vmm {
class Snapshot;
}

namespace vmm::debug {

class Checkpoints {
 public:
  // Each costs as much of the host's memory as the guest has written.
  static constexpr std::size_t kMost = 8;

  struct Checkpoint {
    std::string name;
    std::shared_ptr<const Snapshot> snapshot;
    std::uint64_t pc = 0;  // of the first CPU, linear
    std::chrono::steady_clock::time_point made = std::chrono::steady_clock::now();
  };

  // One more, under its name, or a number of its own when that is empty; one of the same name goes,
  // and when there are too many the oldest. The name it got.
  const std::string& add(std::string_view name, std::shared_ptr<const Snapshot> snapshot,
                         std::uint64_t pc);
  // The one of that name, or the newest when that is empty; lives until the next add(). Errors:
  // kBadConfig, with the names there are.
  Result<const Checkpoint*> find(std::string_view name) const;
  // The oldest one first.
  const std::deque<Checkpoint>& all() const noexcept { return all_; }

 private:
  std::deque<Checkpoint> all_;
  unsigned numbered_ = 0;
};

}  // namespace vmm::debug
