// Finds ACPI tables in guest memory the way an operating system does, for tests.
#pragma once

#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "memory/guest_memory.h"

namespace vmm::x86 {

using TableBytes = std::vector<std::byte>;

inline TableBytes read_bytes(const GuestMemory& memory, Gpa from, std::uint64_t size) {
  TableBytes bytes(size);
  if (!memory.read(from, bytes)) bytes.clear();
  return bytes;
}

template <typename T>
T field(const TableBytes& table, std::size_t offset) {
  T value{};
  std::memcpy(&value, table.data() + offset, sizeof(value));
  return value;
}

inline unsigned sum_of(const TableBytes& bytes, std::size_t first_bytes) {
  unsigned sum = 0;
  for (std::size_t i = 0; i < first_bytes; ++i) sum += std::to_integer<unsigned>(bytes[i]);
  return sum & 0xff;
}

inline std::string signature_of(const TableBytes& table) {
  return {reinterpret_cast<const char*>(table.data()), 4};
}

inline TableBytes read_table(const GuestMemory& memory, std::uint64_t address) {
  const auto size = memory.read<std::uint32_t>(Gpa(address + 4)).value();
  return read_bytes(memory, Gpa(address), size);
}

// All tables by signature, reached from the RSDP through the XSDT; the RSDP itself as "RSDP".
inline std::map<std::string, TableBytes> walk_acpi(const GuestMemory& memory, Gpa rsdp_at) {
  std::map<std::string, TableBytes> tables;
  const TableBytes& rsdp = tables["RSDP"] = read_bytes(memory, rsdp_at, 36);
  tables["RSDT"] = read_table(memory, field<std::uint32_t>(rsdp, 16));
  const TableBytes& xsdt = tables["XSDT"] = read_table(memory, field<std::uint64_t>(rsdp, 24));
  for (std::size_t at = 36; at + 8 <= xsdt.size(); at += 8) {
    const TableBytes table = read_table(memory, field<std::uint64_t>(xsdt, at));
    tables[signature_of(table)] = table;
  }
  const TableBytes& fadt = tables["FACP"];
  tables["FACS"] = read_table(memory, field<std::uint32_t>(fadt, 36));
  tables["DSDT"] = read_table(memory, field<std::uint64_t>(fadt, 140));
  return tables;
}

}  // namespace vmm::x86
