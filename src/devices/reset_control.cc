#include "devices/reset_control.h"

#include <utility>

#include "devices/state_io.h"

namespace vmm {
namespace {

constexpr std::uint8_t kSrst = 0x02;
constexpr std::uint8_t kRcpu = 0x04;
constexpr std::uint8_t kFullReset = 0x08;
constexpr std::uint8_t kStored = kSrst | kRcpu | kFullReset;

}  // namespace

Result<void> ResetControl::State::validate() const {
  if ((value & ~kStored) != 0) {
    return fail(ErrorCode::kBadState, "The reset control register holds bits that do not exist");
  }
  return {};
}

ResetControl::ResetControl(std::string id, MachineEvents* events)
    : events_(events), id_(std::move(id)) {}

void ResetControl::read(const IoAccess&, std::span<std::byte> data) {
  if (!data.empty()) data[0] = std::byte{s_.value};
}

void ResetControl::write(const IoAccess&, std::span<const std::byte> data) {
  if (data.empty()) return;
  const auto before = s_.value;
  s_.value = std::to_integer<std::uint8_t>(data[0]) & kStored;
  if ((s_.value & ~before & kRcpu) != 0 && events_ != nullptr) {
    events_->request(GuestRequest::kReset, 0);
  }
}

void ResetControl::reset() { s_ = State{}; }

void ResetControl::save(StateWriter& writer) const { writer.put(s_); }

Result<void> ResetControl::restore(const StateReader& reader) {
  s_ = VMM_TRY(reader.get<State>());
  return {};
}

}  // namespace vmm
