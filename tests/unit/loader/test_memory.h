// Guest RAM and names for loader tests.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "base/size.h"
#include "memory/guest_memory.h"
#include "support/kernel_images.h"

namespace vmm::loader {

// RAM from 0 to `size`.
inline GuestMemory ram(std::uint64_t size = MiB(64)) {
  std::vector<GuestRegion> regions;
  regions.push_back(GuestRegion::create(GpaRange::create(Gpa(0), size).value(), {}).value());
  return GuestMemory::create(std::move(regions)).value();
}

// Empty when it is not all RAM.
inline test::Bytes bytes_at(const GuestMemory& memory, std::uint64_t address, std::size_t size) {
  test::Bytes bytes(size);
  if (!memory.read(Gpa(address), bytes)) bytes.clear();
  return bytes;
}

// "LZ4legacy": what GoogleTest accepts in a name.
inline std::string test_name(const ::testing::TestParamInfo<Compression>& info) {
  std::string name(to_string(info.param));
  std::erase_if(name, [](char c) { return c == ' ' || c == '(' || c == ')'; });
  return name;
}

}  // namespace vmm::loader
