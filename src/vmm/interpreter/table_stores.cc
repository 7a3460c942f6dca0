// Stores into the guest's page tables (table_map.h says why they are special).
#include "memory/page_walk.h"
#include "vmm/interpreter/access.h"

namespace vmm::interpreter {
namespace {

constexpr std::uintptr_t kEntry = sizeof(std::uint64_t);

// Whether an entry that [at, at + size) lies in is present. Both ends: it may touch two.
bool any_present(const std::byte* at, std::size_t size) noexcept {
  const auto entry_of = [](const std::byte* byte) {
    return byte - reinterpret_cast<std::uintptr_t>(byte) % kEntry;
  };
  return ((load_at<std::uint64_t>(entry_of(at)) | load_at<std::uint64_t>(entry_of(at + size - 1))) &
          kEntryPresent) != 0;
}

}  // namespace

bool store_slow(Cpu& cpu, std::uint64_t address, std::span<const std::byte> bytes) noexcept {
  const Tlb::Table table = cpu.tlb.take_table();
  if (table.at == nullptr) {
    return (Tlb::crosses(address, bytes.size()) || cpu.tlb.last_miss().guarded) &&
           cpu.tlb.copy_out(address, bytes);
  }
  cpu.refused = table;
  if (Tlb::crosses(address, bytes.size()) || any_present(table.at, bytes.size())) return false;
  const std::uint8_t mark = table.mark->load(std::memory_order_relaxed);
  if (bytes.size() == kEntry && reinterpret_cast<std::uintptr_t>(table.at) % kEntry == 0) {
    const auto value = load_at<std::uint64_t>(bytes.data());
    cpu.tlb.tables().add_entry(value, mark);  // first: what is behind it is known before it is used
    store_at(table.at, value);
    // A table that leads to itself is one of more levels now, and so is what it leads to.
    const std::uint8_t now = table.mark->load(std::memory_order_relaxed);
    if (now != mark) cpu.tlb.tables().add_entry(value, now);
    cpu.refused = {};
    return true;
  }
  if (mark != TableMap::kLeafTable) return false;
  for (std::size_t i = 0; i < bytes.size(); ++i)
    store_at(table.at + i, std::to_integer<std::uint8_t>(bytes[i]));
  cpu.refused = {};
  return true;
}

std::byte* table_place(Cpu& cpu, std::size_t size) noexcept {
  const Tlb::Table table = cpu.tlb.take_table();
  if (table.at == nullptr) return nullptr;
  // What an upper table comes to lead to would have to be known first.
  const bool leaf = table.mark->load(std::memory_order_relaxed) == TableMap::kLeafTable;
  if (leaf && !any_present(table.at, size)) return table.at;
  cpu.refused = table;
  return nullptr;
}

}  // namespace vmm::interpreter
