#include "devices/debug_exit.h"

#include <utility>

#include "base/le.h"
#include "devices/state_io.h"

namespace vmm {

DebugExit::DebugExit(std::string id, MachineEvents* events) : events_(events), id_(std::move(id)) {}

void DebugExit::read(const IoAccess&, std::span<std::byte>) {}  // what an empty bus reads

// The value is what was written, whichever of the window's bytes it went to.
void DebugExit::write(const IoAccess&, std::span<const std::byte> data) {
  if (events_ == nullptr) return;
  events_->request(GuestRequest::kDebugExit, static_cast<std::uint32_t>(load_le(data)));
}

void DebugExit::reset() { s_ = State{}; }

void DebugExit::save(StateWriter& writer) const { writer.put(s_); }

Result<void> DebugExit::restore(const StateReader& reader) {
  s_ = VMM_TRY(reader.get<State>());
  return {};
}

}  // namespace vmm
