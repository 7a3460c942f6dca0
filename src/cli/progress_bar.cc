#include "cli/progress_bar.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "base/size.h"

namespace vmm::cli {
namespace {

void draw(const std::string& text) {
  // A bar that cannot be drawn is not worth an error.
  if (::write(STDERR_FILENO, text.data(), text.size()) < 0) return;
}

}  // namespace

std::string progress_text(const std::string& what, std::uint64_t done, std::uint64_t all) {
  constexpr double kWidth = 24;
  const double part =
      all == 0 ? 1.0 : std::min(static_cast<double>(done) / static_cast<double>(all), 1.0);
  return fmt::format("{} [{:<24}] {:.0f} %, {} of {}", what,
                     std::string(static_cast<std::size_t>(part * kWidth), '#'), part * 100,
                     format_size(std::min(done, all)), format_size(all));
}

void ProgressBar::show(std::uint64_t done, std::uint64_t all) {
  if (done >= all) {
    clear();
    return;
  }
  const auto now = std::chrono::steady_clock::now();
  if (now < next_) return;
  next_ = now + std::chrono::milliseconds(100);
  draw(fmt::format("\r{}\x1b[K", progress_text(what_, done, all)));
  drawn_ = true;
}

void ProgressBar::clear() {
  if (drawn_) draw("\r\x1b[K");
  drawn_ = false;
}

}  // namespace vmm::cli
