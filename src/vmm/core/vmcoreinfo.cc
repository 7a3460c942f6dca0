#include "vmm/core/vmcoreinfo.h"

#include <array>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "base/le.h"

namespace vmm {
namespace {

using namespace std::string_view_literals;

// Name with its end, padded to words.
constexpr std::string_view kOwner = "VMCOREINFO\0\0"sv;
constexpr std::uint32_t kOwnerSize = 11;
constexpr std::string_view kBegin = "OSRELEASE="sv;

struct NoteHead {
  Le32 owner_size, size, type;
  std::array<char, kOwner.size()> owner;
};

}  // namespace

std::span<const std::byte> vmcoreinfo_in(std::span<const std::byte> page) noexcept {
  NoteHead head;
  if (page.size() < sizeof head + kBegin.size()) return {};
  std::memcpy(&head, page.data(), sizeof head);
  const std::string_view owner(head.owner.data(), head.owner.size());
  if (head.owner_size != kOwnerSize || head.type != 0U || owner != kOwner) return {};
  const auto text = page.subspan(sizeof head);
  if (head.size < kBegin.size() || head.size > kMostVmcoreinfo || head.size > text.size())
    return {};
  if (std::memcmp(text.data(), kBegin.data(), kBegin.size()) != 0) return {};
  return text.first(head.size);
}

}  // namespace vmm
