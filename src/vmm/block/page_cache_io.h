// Reads and writes that only copy from or to the host's page cache: made at once, by the thread
// that has them to do, they cost a fraction of what handing them over does.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

#include "vmm/block/io_engine.h"
#include "vmm/block/stall_budget.h"

namespace vmm::block {

// Used by an engine, which says when it starts a batch. Externally synchronised.
class PageCacheIo {
 public:
  // `now`: the clock by which a write has waited or not.
  explicit PageCacheIo(StallBudget::TimePoint (*now)() = std::chrono::steady_clock::now)
      : now_(now) {}

  // Of what is written at once, so that others whom the thread serves are not kept waiting.
  static constexpr std::uint64_t kMostInABatch = 4 * 1024 * 1024;

  void begin_batch() noexcept { left_ = kMostInABatch; }
  // How many bytes were moved, which may be fewer than asked for. Nothing when none were: the
  // engine has to do it, and finds out about errors.
  std::optional<std::int64_t> transfer(const IoTask& task);

 private:
  std::optional<std::int64_t> read(const IoTask& task);
  std::optional<std::int64_t> write(const IoTask& task);

  // After a read that has to wait for the disk so many are not tried, twice as many each time.
  static constexpr unsigned kMostUntried = 64;
  StallBudget::TimePoint (*now_)();
  bool can_read_ = true;     // no file system has refused the flag yet
  unsigned untried_ = 0;     // reads that are not tried
  unsigned after_miss_ = 1;  // what that will be
  std::uint64_t left_ = kMostInABatch;
  StallBudget waiting_;  // of writes: for the journal, or because too much is dirty
};

}  // namespace vmm::block
