#include "devices/debug_console.h"

#include <utility>

#include "devices/state_io.h"

namespace vmm {

DebugConsole::DebugConsole(std::string id, ByteSink* output)
    : output_(output), id_(std::move(id)) {}

void DebugConsole::read(const IoAccess&, std::span<std::byte> data) {
  if (!data.empty()) data[0] = kPresent;
}

void DebugConsole::write(const IoAccess&, std::span<const std::byte> data) {
  if (output_ != nullptr) output_->write(data);
}

void DebugConsole::reset() { s_ = State{}; }

void DebugConsole::save(StateWriter& writer) const { writer.put(s_); }

Result<void> DebugConsole::restore(const StateReader& reader) {
  s_ = VMM_TRY(reader.get<State>());
  return {};
}

}  // namespace vmm
