// An interrupt message on its way to local APICs: what an I/O APIC, an MSI or an ICR write sends
// (Intel SDM volume 3, 11.6.1, 11.11 and 11.12.9).
#pragma once

#include <cstdint>
#include <optional>

namespace vmm {

enum class ApicDelivery : std::uint8_t {
  kFixed = 0,
  kLowestPriority = 1,
  kSmi = 2,
  kNmi = 4,
  kInit = 5,
  kStartUp = 6,  // from an ICR only
  kExtInt = 7,   // never from an ICR
};

struct ApicMessage {
  // Who is meant; only an ICR uses others than kNone.
  enum class Shorthand : std::uint8_t { kNone = 0, kSelf = 1, kAll = 2, kOthers = 3 };

  std::uint32_t destination = 0;
  bool logical = false;  // the destination is a set of logical IDs, not an APIC ID
  bool wide = false;     // the destination has 32 bits (from an x2APIC's ICR), else 8 or 15
  Shorthand shorthand = Shorthand::kNone;
  ApicDelivery delivery = ApicDelivery::kFixed;
  std::uint8_t vector = 0;
  bool level = false;  // level-triggered: its EOI is told to the I/O APICs

  bool operator==(const ApicMessage&) const = default;
};

// The message that a write of `data` to `address` is. Destinations have 8 bits, and with
// `extended_destinations` 15 (address bits 11:5, KVM_FEATURE_MSI_EXT_DEST_ID). Nothing when the
// address is no message's, or the delivery mode is reserved.
std::optional<ApicMessage> decode_msi(std::uint64_t address, std::uint32_t data,
                                      bool extended_destinations = false);

}  // namespace vmm
