// MSI-X: a table of messages, one for each interrupt that a function has (PCI Local Bus
// Specification 3.0, 6.8.2).
//
//   table   16 bytes a vector: address, upper address, data, vector control (bit 0: masked)
//   PBA     a bit a vector: it fell due while it could not be sent
//
// Emulated: all of it. The capability's control word lies in configuration space; set_control()
// says what it holds.
//
// Threats: addresses and data are the guest's, and go nowhere but to the MsiSink, which judges
// them. What a guest can make this send is bounded by what its device triggers: a vector that falls
// due again while it is pending is one.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "devices/irq.h"
#include "devices/msi_route.h"

namespace vmm::pci {

class Msix {
 public:
  static constexpr std::size_t kEntrySize = 16;
  static constexpr std::size_t kMostVectors = 2048;
  static constexpr std::uint8_t kCapabilityId = 0x11;
  // Of the control word.
  static constexpr std::uint16_t kEnable = 1U << 15;
  static constexpr std::uint16_t kFunctionMask = 1U << 14;

  struct Entry {
    // As the guest sees them: address, upper address, data, control. Masked after a reset.
    std::array<std::uint32_t, 4> words{0, 0, 0, kMasked};
    bool pending = false;
    bool masked() const noexcept { return (words[3] & kMasked) != 0; }
    bool operator==(const Entry&) const = default;
    static void fields(auto&& f) {
      f("words", &Entry::words);
      f("pending", &Entry::pending);
    }
  };
  using Table = std::vector<Entry>;

  // `sink` is borrowed and outlives this; nullptr drops messages. `router` is asked for a better
  // way for each vector now, if there is one.
  Msix(std::size_t vectors, MsiSink* sink, MsiRouter* router = nullptr);

  std::size_t vectors() const noexcept { return table_.size(); }

  // Any offset and width; what lies past the end reads zeros.
  void read_table(std::uint64_t offset, std::span<std::byte> data) const;
  void write_table(std::uint64_t offset, std::span<const std::byte> data);
  void read_pending(std::uint64_t offset, std::span<std::byte> data) const;

  // Whether messages may go out at all; sends what waited for it. `enabled` is MSI-X itself, `open`
  // that nothing holds all of its messages back.
  void set_control(bool enabled, bool open);
  bool enabled() const noexcept { return enabled_; }

  // The function's interrupt: sent, or pending until it can be. Nothing for a vector that is not
  // there, and while MSI-X is off.
  void trigger(std::size_t vector);

  // --- State; the control word is its owner's.
  const Table& table() const noexcept { return table_; }
  void reset();
  // Errors: kBadState for a table of another size, or with bits that do not exist.
  Result<void> check(const Table& table) const;
  // Sends nothing: set_control() comes next.
  void set_table(Table table) { table_ = std::move(table); }

 private:
  static constexpr std::uint32_t kMasked = 1;

  void send_if_possible(std::size_t vector);

  Table table_;
  MsiSink* sink_;
  std::vector<std::unique_ptr<MsiRoute>> routes_;  // one a vector, or nullptr
  bool enabled_ = false;
  bool open_ = false;
};

}  // namespace vmm::pci
