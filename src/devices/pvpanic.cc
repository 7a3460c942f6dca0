#include "devices/pvpanic.h"

#include <utility>

#include "devices/state_io.h"

namespace vmm {
namespace {

constexpr std::uint8_t kUnderstood = Pvpanic::kPanicked | Pvpanic::kCrashLoaded;

}  // namespace

Result<void> Pvpanic::State::validate() const {
  if ((events & ~kUnderstood) != 0) {
    return fail(ErrorCode::kBadState, "A pvpanic device holds events that do not exist");
  }
  return {};
}

Pvpanic::Pvpanic(std::string id, MachineEvents* events) : events_(events), id_(std::move(id)) {}

void Pvpanic::read(const IoAccess&, std::span<std::byte> data) {
  if (!data.empty()) data[0] = std::byte{kUnderstood};
}

void Pvpanic::write(const IoAccess&, std::span<const std::byte> data) {
  if (data.empty()) return;
  const auto reported = std::to_integer<std::uint8_t>(data[0]);
  s_.events = static_cast<std::uint8_t>(s_.events | (reported & kUnderstood));
  if ((reported & kPanicked) != 0 && events_ != nullptr) {
    events_->request(GuestRequest::kPanic, reported);
  }
}

void Pvpanic::reset() { s_ = State{}; }

void Pvpanic::save(StateWriter& writer) const { writer.put(s_); }

Result<void> Pvpanic::restore(const StateReader& reader) {
  s_ = VMM_TRY(reader.get<State>());
  return {};
}

}  // namespace vmm
