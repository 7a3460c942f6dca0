// Any bytes as an initrd that is to be unpacked.
#include <cstdint>

#include "fuzz/fuzz_input.h"
#include "vmm/loader/initrd.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace vmm;  // NOLINT(google-build-using-namespace): a fuzz target is one function
  static const GuestMemory memory = fuzz::ram();
  loader::InitrdOptions options;
  options.lowest = fuzz::kLowest;
  options.highest = fuzz::kHighest;
  options.unpack = true;
  const auto loaded = loader::load_initrd(fuzz::bytes(data, size), "fuzz.initrd", memory, options);
  if (!loaded) {
    fuzz::require(loaded.error().message().find("fuzz.initrd") != std::string::npos);
    return 0;
  }
  fuzz::require(loaded->range.base() >= options.lowest && loaded->range.end() <= options.highest);
  fuzz::require(loaded->range.base().value % 4096 == 0);
  return 0;
}
