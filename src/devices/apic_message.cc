#include "devices/apic_message.h"

namespace vmm {

// SDM volume 3, 11.11.1 and 11.11.2.
std::optional<ApicMessage> decode_msi(std::uint64_t address, std::uint32_t data,
                                      bool extended_destinations) {
  constexpr std::uint64_t kMessages = 0xfee;  // address bits 31:20
  if (address >> 20 != kMessages) return std::nullopt;
  ApicMessage message;
  message.destination = static_cast<std::uint32_t>(address >> 12 & 0xff);
  if (extended_destinations) {
    message.destination |= static_cast<std::uint32_t>(address >> 5 & 0x7f) << 8;
  }
  message.logical = (address & 1U << 2) != 0;
  message.vector = static_cast<std::uint8_t>(data);
  switch (data >> 8 & 7) {
    case 0:
      message.delivery = ApicDelivery::kFixed;
      break;
    case 1:
      message.delivery = ApicDelivery::kLowestPriority;
      break;
    case 2:
      message.delivery = ApicDelivery::kSmi;
      break;
    case 4:
      message.delivery = ApicDelivery::kNmi;
      break;
    case 5:
      message.delivery = ApicDelivery::kInit;
      break;
    case 7:
      message.delivery = ApicDelivery::kExtInt;
      break;
    default:
      return std::nullopt;
  }
  // Only these two are ended by an EOI; a deasserted level says nothing to a local APIC.
  constexpr std::uint32_t kLevel = 1U << 15;
  constexpr std::uint32_t kAssert = 1U << 14;
  const bool ended_by_eoi =
      message.delivery == ApicDelivery::kFixed || message.delivery == ApicDelivery::kLowestPriority;
  message.level = ended_by_eoi && (data & kLevel) != 0;
  if ((data & kLevel) != 0 && (data & kAssert) == 0) return std::nullopt;
  return message;
}

}  // namespace vmm
