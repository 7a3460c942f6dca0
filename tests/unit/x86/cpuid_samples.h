// Supported sets as KVM lists them, cut down to what tests look at.
#pragma once

#include <algorithm>
#include <vector>

#include "vmm/x86/cpu_features.h"

namespace vmm::x86 {

// An Intel server CPU with AVX-512 under KVM on VT-x.
inline std::vector<CpuidEntry> intel_host() {
  return {
      {0x0, 0, false, 0x1f, 0x756e6547, 0x6c65746e, 0x49656e69},
      {0x1, 0, false, 0x000606a6, 0x03100800, 0xf6fa3203, 0x0f8bfbff},
      {0x4, 0, true, 0x1c004121, 0x02c0003f, 0x3f, 0},
      {0x4, 1, true, 0x1c004122, 0x01c0003f, 0x3f, 0},
      {0x4, 2, true, 0x1c004143, 0x04c0003f, 0x3ff, 0},
      {0x4, 3, true, 0x1c03c163, 0x02c0003f, 0xbfff, 4},
      {0x4, 4, true, 0, 0, 0, 0},
      {0x7, 0, true, 1, 0xf1bf27eb, 0x00405f4e, 0xbc000410},
      {0x7, 1, true, 0x20, 0, 0, 0},
      {0xb, 0, true, 0, 0, 0, 0x33},
      {0xd, 0, true, 0x2e7, 0xa88, 0xa88, 0},
      {0xd, 1, true, 0xf, 0x9a0, 0, 0},
      {0xd, 2, true, 0x100, 0x240, 0, 0},
      {0xd, 5, true, 0x40, 0x440, 0, 0},
      {0xd, 6, true, 0x200, 0x480, 0, 0},
      {0xd, 7, true, 0x400, 0x680, 0, 0},
      {0xd, 9, true, 0x8, 0xa80, 0, 0},
      {0x1f, 0, true, 0, 0, 0, 0x33},
      {0x80000000, 0, false, 0x80000008, 0, 0, 0},
      {0x80000001, 0, false, 0, 0, 0x121, 0x2c100800},
      {0x80000002, 0, false, 0x65746e49, 0x2952286c, 0x6f655820, 0x2952286e},
      {0x80000003, 0, false, 0x20555043, 0, 0, 0},
      {0x80000004, 0, false, 0, 0, 0, 0},
      {0x80000008, 0, false, 0x3930, 0, 0, 0},
      {0x40000000, 0, false, 0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d},
      {0x40000001, 0, false, 0x0101fefb, 0, 0, 0},
  };
}

// An AMD server CPU; its brand string is empty, as some hosts list it.
inline std::vector<CpuidEntry> amd_host() {
  return {
      {0x0, 0, false, 0x10, 0x68747541, 0x444d4163, 0x69746e65},
      {0x1, 0, false, 0x00a10f11, 0x01020800, 0xfeda3203, 0x178bfbff},
      {0xb, 0, true, 0, 0, 0, 1},
      {0x80000000, 0, false, 0x80000021, 0x68747541, 0x444d4163, 0x69746e65},
      {0x80000001, 0, false, 0x00a10f11, 0x40000000, 0x00400391, 0x23d3fbff},
      {0x80000002, 0, false, 0, 0, 0, 0},
      {0x80000003, 0, false, 0, 0, 0, 0},
      {0x80000004, 0, false, 0, 0, 0, 0},
      {0x80000008, 0, false, 0x3030, 0x50020005, 0x7001, 0},
      {0x8000001d, 2, true, 0x143, 0x01c0003f, 0x7ff, 2},
      {0x8000001d, 3, true, 0x4163, 0x03c0003f, 0x7fff, 1},
      {0x8000001e, 0, false, 5, 0x0102, 3, 0},
      {0x40000000, 0, false, 0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d},
      {0x40000001, 0, false, 0x01007efb, 0, 0, 0},
  };
}

// The entry of a leaf; all zeros when there is none, as the CPU would answer.
inline CpuidEntry leaf(const std::vector<CpuidEntry>& table, std::uint32_t function,
                       std::uint32_t index = 0) {
  const auto found = std::find_if(table.begin(), table.end(), [&](const CpuidEntry& entry) {
    return entry.function == function && (!entry.index_matters || entry.index == index);
  });
  return found == table.end() ? CpuidEntry{} : *found;
}

}  // namespace vmm::x86
