#include "devices/pci/msix.h"

#include <algorithm>

namespace vmm::pci {
namespace {

// Bits of an entry's words that a guest can set: the lowest two of an address are zero, and of the
// control word only the mask exists.
constexpr std::array<std::uint32_t, 4> kWritable{~std::uint32_t{3}, ~std::uint32_t{0},
                                                 ~std::uint32_t{0}, 1};

}  // namespace

Msix::Msix(std::size_t vectors, MsiSink* sink, MsiRouter* router)
    : table_(vectors), sink_(sink), routes_(vectors) {
  if (router == nullptr) return;
  for (auto& route : routes_) route = router->make_route();
}

void Msix::read_table(std::uint64_t offset, std::span<std::byte> data) const {
  for (std::size_t i = 0; i < data.size(); ++i) {
    const std::uint64_t at = offset + i;
    const std::uint64_t index = at / kEntrySize;
    const unsigned shift = 8 * (at % 4);
    data[i] = index < table_.size()
                  ? static_cast<std::byte>(table_[index].words[at / 4 % 4] >> shift)
                  : std::byte{0};
  }
}

void Msix::write_table(std::uint64_t offset, std::span<const std::byte> data) {
  const std::uint64_t first = offset / kEntrySize;
  for (std::size_t i = 0; i < data.size(); ++i) {
    const std::uint64_t at = offset + i;
    const std::uint64_t index = at / kEntrySize;
    if (index >= table_.size()) break;
    const unsigned shift = 8 * (at % 4);
    const std::uint32_t mask = kWritable[at / 4 % 4] & std::uint32_t{0xff} << shift;
    std::uint32_t& word = table_[index].words[at / 4 % 4];
    word = (word & ~mask) | (std::to_integer<std::uint32_t>(data[i]) << shift & mask);
  }
  // Once the whole access has been made: it may write data and unmask at a time.
  for (std::uint64_t index = first; index * kEntrySize < offset + data.size(); ++index) {
    if (index < table_.size() && table_[index].pending) send_if_possible(index);
  }
}

void Msix::read_pending(std::uint64_t offset, std::span<std::byte> data) const {
  for (std::size_t i = 0; i < data.size(); ++i) {
    unsigned bits = 0;
    for (unsigned bit = 0; bit < 8; ++bit) {
      const std::uint64_t index = (offset + i) * 8 + bit;
      if (index < table_.size() && table_[index].pending) bits |= 1U << bit;
    }
    data[i] = static_cast<std::byte>(bits);
  }
}

void Msix::set_control(bool enabled, bool open) {
  const bool could_send = enabled_ && open_;
  enabled_ = enabled;
  open_ = open;
  if (could_send || !enabled_ || !open_) return;
  for (std::size_t vector = 0; vector < table_.size(); ++vector) {
    if (table_[vector].pending) send_if_possible(vector);
  }
}

void Msix::trigger(std::size_t vector) {
  if (!enabled_ || vector >= table_.size()) return;
  table_[vector].pending = true;
  send_if_possible(vector);
}

void Msix::send_if_possible(std::size_t vector) {
  Entry& entry = table_[vector];
  if (!enabled_ || !open_ || entry.masked()) return;
  entry.pending = false;
  const MsiMessage message{.address = std::uint64_t{entry.words[1]} << 32 | entry.words[0],
                           .data = entry.words[2]};
  if (routes_[vector] != nullptr) {
    routes_[vector]->send(message);
  } else if (sink_ != nullptr) {
    sink_->send(message.address, message.data);
  }
}

void Msix::reset() {
  std::fill(table_.begin(), table_.end(), Entry());
  set_control(false, false);
}

Result<void> Msix::check(const Table& table) const {
  if (table.size() != table_.size()) {
    return fail(ErrorCode::kBadState, "An MSI-X table of {} entries, this function has {}",
                table.size(), table_.size());
  }
  for (const Entry& entry : table) {
    for (std::size_t i = 0; i < kWritable.size(); ++i) {
      if ((entry.words[i] & ~kWritable[i]) != 0) {
        return fail(ErrorCode::kBadState, "An MSI-X entry holds bits that do not exist");
      }
    }
  }
  return {};
}

}  // namespace vmm::pci
