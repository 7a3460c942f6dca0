#include "vmm/level_lines.h"

#include <utility>

#include "base/assert.h"
#include "devices/state_io.h"

namespace vmm {

Result<void> LevelLines::State::validate() const {
  if ((asserted >> kLines) == 0) return {};
  return fail(ErrorCode::kBadState, "There are {} interrupt lines: {:#x}", kLines, asserted);
}

void LevelLines::add(std::uint32_t line, IrqLine out, std::function<void()> resample) {
  VMM_ASSERT(line < kLines);
  if (lines_[line].sources.empty()) lines_[line].out = out;
  lines_[line].sources.push_back(std::move(resample));
}

// The bit before the level: the interrupt may have ended on another CPU before set_level() returns.
void LevelLines::set(std::uint32_t line, bool asserted) {
  const std::uint32_t bit = std::uint32_t{1} << line;
  if (asserted) {
    asserted_.fetch_or(bit, std::memory_order_release);
  } else {
    asserted_.fetch_and(~bit, std::memory_order_release);
  }
  lines_[line].out.set_level(asserted);
}

void LevelLines::raise(std::uint32_t line) {
  if (!lines_[line].sources.empty()) set(line, true);
}

void LevelLines::end(std::uint32_t line) {
  if (!is_up(line)) return;
  set(line, false);
  for (const auto& resample : lines_[line].sources) resample();
}

void LevelLines::put(std::uint32_t asserted) {
  for (std::uint32_t line = 0; line < kLines; ++line) {
    if (lines_[line].sources.empty()) continue;
    set(line, (asserted >> line & 1) != 0);
    for (const auto& resample : lines_[line].sources) resample();
  }
}

void LevelLines::save(StateWriter& writer) const {
  writer.put(State{.asserted = asserted_.load(std::memory_order_relaxed)});
}

Result<void> LevelLines::restore(const StateReader& reader) {
  put(VMM_TRY(reader.get<State>()).asserted);
  return {};
}

}  // namespace vmm
