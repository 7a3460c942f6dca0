// How far something is, on one line of a terminal.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace vmm::cli {

// Draws on stderr, at most ten times a second, and clears its line at the end. Used by one thread.
class ProgressBar {
 public:
  explicit ProgressBar(std::string what) : what_(std::move(what)) {}
  ~ProgressBar() { clear(); }
  // `done` of `all` bytes; clears the line when that is all.
  void show(std::uint64_t done, std::uint64_t all);

 private:
  void clear();
  std::string what_;
  std::chrono::steady_clock::time_point next_{};
  bool drawn_ = false;
};

// "guest memory [#######             ] 35 %, 180 MiB of 512 MiB"
std::string progress_text(const std::string& what, std::uint64_t done, std::uint64_t all);

}  // namespace vmm::cli
