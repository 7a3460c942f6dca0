#include "devices/port92.h"

#include <utility>

#include "devices/state_io.h"

namespace vmm {
namespace {

constexpr std::uint8_t kFastReset = 0x01;
constexpr std::uint8_t kA20 = 0x02;
constexpr std::uint8_t kStored = kFastReset | kA20;

}  // namespace

Result<void> Port92::State::validate() const {
  if ((value & ~kStored) != 0) {
    return fail(ErrorCode::kBadState, "Port 0x92 holds bits that do not exist");
  }
  return {};
}

Port92::Port92(std::string id, MachineEvents* events) : events_(events), id_(std::move(id)) {}

void Port92::read(const IoAccess&, std::span<std::byte> data) {
  if (!data.empty()) data[0] = std::byte{s_.value};
}

void Port92::write(const IoAccess&, std::span<const std::byte> data) {
  if (data.empty()) return;
  const auto before = s_.value;
  s_.value = std::to_integer<std::uint8_t>(data[0]) & kStored;
  if ((s_.value & ~before & kFastReset) != 0 && events_ != nullptr) {
    events_->request(GuestRequest::kReset, 0);
  }
}

void Port92::reset() { s_ = State{}; }

void Port92::save(StateWriter& writer) const { writer.put(s_); }

Result<void> Port92::restore(const StateReader& reader) {
  s_ = VMM_TRY(reader.get<State>());
  return {};
}

}  // namespace vmm
