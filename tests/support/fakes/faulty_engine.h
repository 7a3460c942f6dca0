// System calls of disks that go wrong on request, and whose order can be looked at.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "vmm/block/io_engine.h"

namespace vmm::test {

// Passes tasks on to a real engine. `alter` sees each before it starts and may shorten it through
// the copy of its buffers; a result that it gives is told instead of starting anything.
class FaultyEngine final : public block::IoEngine, private block::IoOwner {
 public:
  explicit FaultyEngine(std::unique_ptr<block::IoEngine> engine) : engine_(std::move(engine)) {}

  // The next task of that kind ends like this, and does nothing.
  void fail_next(block::IoOp op, int error) { answers_[op].push_back({-error, false}); }
  // The next one transfers so many bytes only.
  void shorten_next(block::IoOp op, std::int64_t bytes) { answers_[op].push_back({bytes, true}); }
  // Called as a task ends, before its owner is told.
  std::function<void(const block::IoTask&, std::int64_t result)> on_end;
  // Called before one starts.
  std::function<void(const block::IoTask&)> on_start;

  std::string_view name() const noexcept override { return "faulty"; }
  int event_fd() const noexcept override { return engine_->event_fd(); }
  void commit() override { engine_->commit(); }
  void poll() override { engine_->poll(); }
  void drain() override { engine_->drain(); }

  void submit(block::IoTask& task) override {
    if (idle_.empty()) {
      all_.push_back(std::make_unique<Inner>());
      idle_.push_back(all_.back().get());
    }
    Inner& inner = *idle_.back();
    idle_.pop_back();
    static_cast<block::IoTask&>(inner) = task;
    inner.owner = this;
    inner.outer = &task;
    inner.result = 1;
    if (on_start) on_start(task);
    if (auto& answers = answers_[task.op]; !answers.empty()) {
      const Answer answer = answers.front();
      answers.pop_front();
      if (answer.shorten) {
        shorten(inner, static_cast<std::size_t>(answer.value));
      } else {
        inner.op = block::IoOp::kNothing;
        inner.result = answer.value;
      }
    }
    engine_->submit(inner);
  }

 private:
  struct Answer {
    std::int64_t value;
    bool shorten;
  };
  struct Inner : block::IoTask {
    block::IoTask* outer = nullptr;
    std::int64_t result = 1;  // told instead, when not positive
    std::vector<iovec> part;
  };

  static void shorten(Inner& inner, std::size_t bytes) {
    inner.part.assign(inner.buffers.begin(), inner.buffers.end());
    for (iovec& piece : inner.part) {
      piece.iov_len = std::min(piece.iov_len, bytes);
      bytes -= piece.iov_len;
    }
    inner.buffers = inner.part;
  }

  void io_done(block::IoTask& task, std::int64_t result) override {
    auto& inner = static_cast<Inner&>(task);
    if (inner.result <= 0) result = inner.result;
    block::IoTask& outer = *inner.outer;
    idle_.push_back(&inner);
    if (on_end) on_end(outer, result);
    outer.owner->io_done(outer, result);
  }

  std::unique_ptr<block::IoEngine> engine_;
  std::map<block::IoOp, std::deque<Answer>> answers_;
  std::vector<std::unique_ptr<Inner>> all_;
  std::vector<Inner*> idle_;
};

}  // namespace vmm::test
