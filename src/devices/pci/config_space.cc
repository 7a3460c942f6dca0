#include "devices/pci/config_space.h"

#include "base/assert.h"
#include "base/le.h"

namespace vmm::pci {
namespace {

constexpr std::uint32_t kIoBar = 1;        // bit 0: ports
constexpr std::uint32_t kMemory64Bar = 4;  // bits 2:1: 64 bits
constexpr std::uint32_t kIoFlags = 0x3;
constexpr std::uint32_t kMemoryFlags = 0xf;

}  // namespace

ConfigSpace::ConfigSpace(const Identity& identity) {
  put(kVendorId, identity.vendor, 2);
  put(kDeviceId, identity.device, 2);
  put(kRevisionId, identity.revision, 1);
  put(kClassCode, identity.class_code, 3);
  put(kSubsystemVendorId, identity.subsystem_vendor, 2);
  put(kSubsystemId, identity.subsystem, 2);
  constexpr std::uint16_t kParityAndSerr = 0x0140;  // without meaning here, but kept
  allow(kCommand, kIoSpace | kMemorySpace | kBusMaster | kInterruptDisable | kParityAndSerr, 2);
  allow(kInterruptLine, 0xff, 1);
}

void ConfigSpace::add_bar(std::size_t index, BarKind kind, std::uint64_t size) {
  VMM_ASSERT(index + (kind == BarKind::kMemory64 ? 1 : 0) < kBars);
  VMM_ASSERT((size & (size - 1)) == 0 && size >= (kind == BarKind::kIo ? 4 : 16));
  const std::size_t at = kFirstBar + 4 * index;
  bars_[index] = kind;
  // The bits that can be written are those of the address: a guest that writes all ones reads the
  // size.
  const std::uint64_t mask = ~(size - 1);
  if (kind == BarKind::kIo) {
    put(at, kIoBar, 4);
    allow(at, mask, 4);
  } else if (kind == BarKind::kMemory32) {
    allow(at, mask, 4);
  } else {
    put(at, kMemory64Bar, 4);
    allow(at, mask, 8);
  }
}

void ConfigSpace::assign_bar(std::size_t index, std::uint64_t address) {
  VMM_ASSERT(index < kBars && bars_[index]);
  const std::size_t at = kFirstBar + 4 * index;
  const std::size_t width = *bars_[index] == BarKind::kMemory64 ? 8 : 4;
  std::uint64_t mask = 0;
  for (std::size_t i = 0; i < width; ++i) mask |= std::uint64_t{writable_[at + i]} << (8 * i);
  VMM_ASSERT((address & ~mask) == 0);
  put(at, address | (bytes_[at] & kMemoryFlags), width);
}

void ConfigSpace::set_command(std::uint16_t bits) { put(kCommand, bits, 2); }

void ConfigSpace::set_interrupt_line(std::uint8_t line) { put(kInterruptLine, line, 1); }

std::size_t ConfigSpace::add_capability(std::uint8_t id, std::span<const std::uint8_t> bytes,
                                        std::span<const std::uint8_t> writable) {
  VMM_ASSERT(free_ + 2 + bytes.size() <= kSize && writable.size() <= bytes.size());
  const std::size_t at = free_;
  put(last_link_, at, 1);
  put(kStatus, kCapabilityList, 2);
  put(at, id, 1);
  for (std::size_t i = 0; i < bytes.size(); ++i) put(at + 2 + i, bytes[i], 1);
  for (std::size_t i = 0; i < writable.size(); ++i) allow(at + 2 + i, writable[i], 1);
  last_link_ = at + 1;
  free_ = (at + 2 + bytes.size() + 3) / 4 * 4;
  return at;
}

void ConfigSpace::set_interrupt_pin(std::uint8_t pin) { put(kInterruptPin, pin, 1); }

void ConfigSpace::read(std::uint64_t offset, std::span<std::byte> data) const {
  for (std::size_t i = 0; i < data.size(); ++i) {
    const std::uint64_t at = offset + i;
    data[i] = at < kSize ? std::byte{bytes_[static_cast<std::size_t>(at)]} : std::byte{0xff};
  }
}

void ConfigSpace::write(std::uint64_t offset, std::span<const std::byte> data) {
  for (std::size_t i = 0; i < data.size() && offset + i < kSize; ++i) {
    const auto at = static_cast<std::size_t>(offset + i);
    const unsigned mask = writable_[at];
    bytes_[at] = static_cast<std::uint8_t>((bytes_[at] & ~mask) |
                                           (std::to_integer<unsigned>(data[i]) & mask));
  }
}

std::uint16_t ConfigSpace::command() const noexcept {
  return static_cast<std::uint16_t>(bytes_[kCommand] | bytes_[kCommand + 1] << 8);
}

std::optional<std::uint64_t> ConfigSpace::bar(std::size_t index) const noexcept {
  if (index >= kBars || !bars_[index]) return std::nullopt;
  const std::size_t width = *bars_[index] == BarKind::kMemory64 ? 8 : 4;
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < width; ++i) {
    value |= std::uint64_t{bytes_[kFirstBar + 4 * index + i]} << (8 * i);
  }
  return value & ~std::uint64_t{*bars_[index] == BarKind::kIo ? kIoFlags : kMemoryFlags};
}

Result<void> ConfigSpace::check(const Bytes& bytes) const {
  for (std::size_t i = 0; i < kSize; ++i) {
    if (((bytes[i] ^ power_on_[i]) & ~writable_[i]) != 0) {
      return fail(ErrorCode::kBadState,
                  "PCI configuration byte {:#x} is {:#x}: bits differ that are read-only", i,
                  bytes[i]);
    }
  }
  return {};
}

void ConfigSpace::put(std::size_t offset, std::uint64_t value, std::size_t width) {
  for (std::size_t i = 0; i < width; ++i) {
    power_on_[offset + i] = bytes_[offset + i] = static_cast<std::uint8_t>(value >> (8 * i));
  }
}

void ConfigSpace::allow(std::size_t offset, std::uint64_t mask, std::size_t width) {
  for (std::size_t i = 0; i < width; ++i) {
    writable_[offset + i] = static_cast<std::uint8_t>(mask >> (8 * i));
  }
}

}  // namespace vmm::pci
