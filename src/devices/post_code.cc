#include "devices/post_code.h"

#include <utility>

#include "devices/state_io.h"

namespace vmm {

PostCode::PostCode(std::string id) : id_(std::move(id)) {}

void PostCode::read(const IoAccess&, std::span<std::byte> data) {
  if (!data.empty()) data[0] = std::byte{s_.code};
}

void PostCode::write(const IoAccess&, std::span<const std::byte> data) {
  if (!data.empty()) s_.code = std::to_integer<std::uint8_t>(data[0]);
}

void PostCode::reset() { s_ = State{}; }

void PostCode::save(StateWriter& writer) const { writer.put(s_); }

Result<void> PostCode::restore(const StateReader& reader) {
  s_ = VMM_TRY(reader.get<State>());
  return {};
}

}  // namespace vmm
