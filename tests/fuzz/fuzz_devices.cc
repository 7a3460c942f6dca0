// Any sequence of operations on the devices (docs/devices.md).
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "tests/fuzz/device_operations.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const char* broken = vmm::test::run_device_operations({data, size}).broken;
  if (broken != nullptr) {
    std::fprintf(stderr, "%s\n", broken);
    std::abort();
  }
  return 0;
}
