#include "vmm/guest_linux/vmcoreinfo_table.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <vector>

#include "vmm/core/vmcoreinfo.h"

namespace vmm::guest_linux {
namespace {

constexpr std::uint64_t kPage = 4096;

// "a" of "KEY(a)".
std::optional<std::string_view> argument(std::string_view key, std::string_view name) {
  if (key.size() < name.size() + 2 || key.substr(0, name.size()) != name) return std::nullopt;
  key.remove_prefix(name.size());
  if (key.front() != '(' || key.back() != ')') return std::nullopt;
  return key.substr(1, key.size() - 2);
}

std::optional<std::uint64_t> parse(std::string_view text, int base) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// The note that begins in this page, which is in RAM.
std::string note_at(const GuestMemory& memory, Gpa page) {
  std::array<std::byte, 64> head;
  if (!memory.read(page, head)) return {};
  // Judged by its head alone at first: the size that it names may be more than this.
  std::vector<std::byte> whole(2 * kPage);
  std::copy(head.begin(), head.end(), whole.begin());
  if (vmcoreinfo_in(whole).empty()) return {};
  if (!memory.read(page, whole)) {
    whole.resize(kPage);
    if (!memory.read(page, whole)) return {};
  }
  const auto text = vmcoreinfo_in(whole);
  return std::string(reinterpret_cast<const char*>(text.data()), text.size());
}

}  // namespace

VmcoreinfoTable VmcoreinfoTable::parse(std::string_view text) {
  VmcoreinfoTable table;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    const std::size_t sign = line.find('=');
    if (sign != std::string_view::npos) {
      table.values_.emplace(line.substr(0, sign), line.substr(sign + 1));
    }
  }
  return table;
}

std::optional<std::uint64_t> VmcoreinfoTable::value(std::string_view key, int base) const {
  const auto found = values_.find(key);
  if (found == values_.end()) return std::nullopt;
  return guest_linux::parse(found->second, base);
}

std::optional<std::uint64_t> VmcoreinfoTable::symbol(std::string_view name) const {
  return value(fmt::format("SYMBOL({})", name), 16);
}

std::optional<std::uint64_t> VmcoreinfoTable::kernel_offset() const {
  return value("KERNELOFFSET", 16);
}

void VmcoreinfoTable::for_each_size(
    const std::function<void(std::string_view, std::uint64_t)>& fn) const {
  for (const auto& [key, text] : values_) {
    const auto name = argument(key, "SIZE");
    const auto size = guest_linux::parse(text, 10);
    if (name && size) fn(*name, *size);
  }
}

void VmcoreinfoTable::for_each_offset(
    const std::function<void(std::string_view, std::string_view, std::uint64_t)>& fn) const {
  for (const auto& [key, text] : values_) {
    const auto name = argument(key, "OFFSET");
    const auto offset = guest_linux::parse(text, 10);
    const std::size_t dot = name ? name->find('.') : std::string_view::npos;
    if (dot == std::string_view::npos || !offset) continue;
    fn(name->substr(0, dot), name->substr(dot + 1), *offset);
  }
}

std::string find_vmcoreinfo(const GuestMemory& memory) {
  constexpr std::uint64_t kPiece = 4096;  // pages that are asked about at once
  for (const GuestRegion& region : memory.regions()) {
    if (region.kind() != RegionKind::kRam) continue;
    const std::uint64_t pages = region.range().size() / kPage;
    std::array<unsigned char, kPiece> resident;
    for (std::uint64_t first = 0; first < pages; first += kPiece) {
      const std::uint64_t count = std::min(kPiece, pages - first);
      if (::mincore(region.hva() + first * kPage, count * kPage, resident.data()) != 0) continue;
      for (std::uint64_t i = 0; i < count; ++i) {
        if ((resident[i] & 1) == 0) continue;
        std::string text = note_at(memory, Gpa(region.range().base().value + (first + i) * kPage));
        if (!text.empty()) return text;
      }
    }
  }
  return {};
}

}  // namespace vmm::guest_linux
