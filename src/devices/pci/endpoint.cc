#include "devices/pci/endpoint.h"

#include <algorithm>
#include <bit>

#include "base/assert.h"
#include "base/le.h"

namespace vmm::pci {
namespace {

constexpr std::uint64_t kOffsetMask = Endpoint::bar_offset(1) - 1;

}  // namespace

Endpoint::Endpoint(const Identity& identity, Ports ports)
    : space_(identity), ports_(ports), msix_(0, ports.messages) {
  if (ports_.decoding) space_.set_command(kMemorySpace);
}

void Endpoint::add_bar(std::size_t index, BarKind kind, std::uint64_t size, Widths widths) {
  VMM_ASSERT(kind != BarKind::kIo && size >= kSmallestBar && size <= bar_offset(1));
  space_.add_bar(index, kind, size);
  bars_[index] = true;
  if (ports_.windows == nullptr) return;
  const Window shape{.base = 0, .size = size, .widths = widths, .offset = bar_offset(index)};
  space_.assign_bar(index, ports_.windows->add(index, shape));
}

void Endpoint::add_msix(std::size_t bar, std::size_t vectors) {
  VMM_ASSERT(vectors >= 1 && vectors <= Msix::kMostVectors && msix_control_ == 0);
  msix_ = Msix(vectors, ports_.messages, ports_.routes);
  msix_bar_ = bar;
  // The table in the lower half, the PBA in the upper one.
  pending_offset_ = std::max(kSmallestBar / 2, std::bit_ceil(vectors * Msix::kEntrySize));
  add_bar(bar, BarKind::kMemory32, 2 * pending_offset_);
  std::array<std::uint8_t, 10> bytes{};
  store_le(std::as_writable_bytes(std::span(bytes)).subspan(0, 2), vectors - 1);
  store_le(std::as_writable_bytes(std::span(bytes)).subspan(2, 4), bar);  // the table's offset is 0
  store_le(std::as_writable_bytes(std::span(bytes)).subspan(6, 4), pending_offset_ | bar);
  constexpr std::array<std::uint8_t, 2> kControl{0, (Msix::kEnable | Msix::kFunctionMask) >> 8};
  msix_control_ = space_.add_capability(Msix::kCapabilityId, bytes, kControl) + 2;
}

void Endpoint::add_intx() {
  space_.set_interrupt_pin(1);
  space_.set_interrupt_line(ports_.interrupt_line);
}

bool Endpoint::read(const IoAccess& access, std::span<std::byte> data) const {
  if (access.offset >= kConfig) {
    const std::uint64_t offset = access.offset - kConfig;
    space_.read(offset, data);
    // The one bit that is the wire's and not the registers'.
    if (intx_ && offset <= kStatus && kStatus < offset + data.size()) {
      data[static_cast<std::size_t>(kStatus - offset)] |= std::byte{kInterruptStatus};
    }
    return true;
  }
  if (msix_control_ == 0 || access.offset / bar_offset(1) != msix_bar_) return false;
  const std::uint64_t offset = access.offset & kOffsetMask;
  if (offset < pending_offset_) {
    msix_.read_table(offset, data);
  } else {
    msix_.read_pending(offset - pending_offset_, data);
  }
  return true;
}

bool Endpoint::write(const IoAccess& access, std::span<const std::byte> data) {
  if (access.offset >= kConfig) {
    space_.write(access.offset - kConfig, data);
    settle();
    return true;
  }
  if (msix_control_ == 0 || access.offset / bar_offset(1) != msix_bar_) return false;
  const std::uint64_t offset = access.offset & kOffsetMask;
  if (offset < pending_offset_) msix_.write_table(offset, data);
  return true;
}

void Endpoint::set_intx(bool asserted) {
  intx_ = asserted;
  ports_.intx.set_level(intx_line());
}

bool Endpoint::intx_line() const noexcept {
  return intx_ && !msix_.enabled() && (space_.command() & kInterruptDisable) == 0;
}

void Endpoint::reset() {
  space_.reset();
  msix_.reset();
  intx_ = false;
  settle();
}

Result<void> Endpoint::check(const State& state) const {
  VMM_TRY(space_.check(state.config));
  return msix_.check(state.msix);
}

void Endpoint::set_state(const State& state) {
  msix_.reset();
  space_.set_bytes(state.config);
  msix_.set_table(state.msix);
  settle();
}

// What follows from the registers: MSI-X, the wire, where BARs are decoded. A message is a write to
// memory, so it waits for bus mastering, too (6.8.3.3).
void Endpoint::settle() {
  const std::uint16_t command = space_.command();
  if (msix_control_ != 0) {
    const unsigned control = unsigned{space_.byte(msix_control_ + 1)} << 8;
    msix_.set_control((control & Msix::kEnable) != 0,
                      (control & Msix::kFunctionMask) == 0 && (command & kBusMaster) != 0);
  }
  ports_.intx.set_level(intx_line());
  if (ports_.windows == nullptr) return;
  for (std::size_t bar = 0; bar < ConfigSpace::kBars; ++bar) {
    if (!bars_[bar]) continue;
    const auto wanted = (command & kMemorySpace) != 0 ? space_.bar(bar) : std::nullopt;
    if (wanted == placed_[bar]) continue;
    placed_[bar] = wanted;
    ports_.windows->place(bar, wanted);
  }
}

}  // namespace vmm::pci
