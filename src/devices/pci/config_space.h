// Configuration space of one PCI function (PCI Local Bus Specification 3.0, chapter 6): 256 bytes,
// each with its own mask of writable bits, type 0 header.
//
// Emulated: identification, command and status, BARs with the sizing protocol (6.2.5.1),
// capability list. Not emulated: the extended space of PCI Express (reads past 256 bytes are all
// ones), expansion ROM, BIST. What a write means beyond the register (a BAR that moves, bus
// mastering) is up to the function: it compares before and after.
//
// Threats: none; every bit that a guest can change is in a mask.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/result.h"

namespace vmm::pci {

// Offsets of registers (6.1, 6.2).
inline constexpr std::size_t kVendorId = 0x00;
inline constexpr std::size_t kDeviceId = 0x02;
inline constexpr std::size_t kCommand = 0x04;
inline constexpr std::size_t kStatus = 0x06;
inline constexpr std::size_t kRevisionId = 0x08;
inline constexpr std::size_t kClassCode = 0x09;  // interface, subclass, class
inline constexpr std::size_t kHeaderType = 0x0e;
inline constexpr std::size_t kFirstBar = 0x10;
inline constexpr std::size_t kSubsystemVendorId = 0x2c;
inline constexpr std::size_t kSubsystemId = 0x2e;
inline constexpr std::size_t kCapabilities = 0x34;
inline constexpr std::size_t kInterruptLine = 0x3c;
inline constexpr std::size_t kInterruptPin = 0x3d;
inline constexpr std::size_t kHeaderEnd = 0x40;

// Bits of the command register (6.2.2) and the status register (6.2.3).
inline constexpr std::uint16_t kIoSpace = 1U << 0;
inline constexpr std::uint16_t kMemorySpace = 1U << 1;
inline constexpr std::uint16_t kBusMaster = 1U << 2;
inline constexpr std::uint16_t kInterruptDisable = 1U << 10;
inline constexpr std::uint16_t kInterruptStatus = 1U << 3;
inline constexpr std::uint16_t kCapabilityList = 1U << 4;

struct Identity {
  std::uint16_t vendor = 0xffff;
  std::uint16_t device = 0xffff;
  std::uint8_t revision = 0;
  std::uint32_t class_code = 0;  // 24 bits: class, subclass, interface
  std::uint16_t subsystem_vendor = 0;
  std::uint16_t subsystem = 0;
};

enum class BarKind : std::uint8_t { kIo, kMemory32, kMemory64 };

// One function's registers. Layout (masks, capabilities) is set up once; the bytes are state.
class ConfigSpace {
 public:
  static constexpr std::size_t kSize = 256;
  static constexpr std::size_t kBars = 6;
  using Bytes = std::array<std::uint8_t, kSize>;

  explicit ConfigSpace(const Identity& identity);

  // --- Layout: before the guest runs.
  // BAR `index` decodes `size` bytes, a power of two, at least 4 for ports and 16 for memory; a
  // 64-bit one takes the next index too.
  void add_bar(std::size_t index, BarKind kind, std::uint64_t size);
  // What firmware would have left: the address in a BAR, bits of the command register, and the
  // interrupt line.
  void assign_bar(std::size_t index, std::uint64_t address);
  void set_command(std::uint16_t bits);
  void set_interrupt_line(std::uint8_t line);
  // A capability with these bytes behind its ID and link; returns its offset. `writable` has the
  // mask of each of the bytes; what is missing is read-only. Room is for 192 bytes in all.
  std::size_t add_capability(std::uint8_t id, std::span<const std::uint8_t> bytes,
                             std::span<const std::uint8_t> writable = {});
  void set_interrupt_pin(std::uint8_t pin);  // 1 is INTA#

  // --- Registers. Reads past the end are all ones, writes there are dropped.
  void read(std::uint64_t offset, std::span<std::byte> data) const;
  void write(std::uint64_t offset, std::span<const std::byte> data);

  std::uint16_t command() const noexcept;
  std::uint8_t byte(std::size_t offset) const noexcept { return bytes_[offset]; }
  // The address that BAR `index` holds, without its flag bits; nothing for one that is not there.
  std::optional<std::uint64_t> bar(std::size_t index) const noexcept;

  // --- State.
  const Bytes& bytes() const noexcept { return bytes_; }
  void reset() { bytes_ = power_on_; }
  // Errors: kBadState when a bit differs that no guest can change.
  Result<void> check(const Bytes& bytes) const;
  void set_bytes(const Bytes& bytes) { bytes_ = bytes; }

 private:
  void put(std::size_t offset, std::uint64_t value, std::size_t width);
  void allow(std::size_t offset, std::uint64_t mask, std::size_t width);

  Bytes bytes_{};
  Bytes power_on_{};
  Bytes writable_{};
  std::array<std::optional<BarKind>, kBars> bars_{};
  std::size_t last_link_ = kCapabilities;  // where the next capability is linked from
  std::size_t free_ = kHeaderEnd;
};

}  // namespace vmm::pci
