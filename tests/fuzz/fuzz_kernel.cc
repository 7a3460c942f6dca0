// Any bytes as a kernel image, loaded in every way.
#include <cstdint>
#include <cstdlib>

#include "fuzz/fuzz_input.h"
#include "vmm/loader/describe.h"
#include "vmm/loader/load_kernel.h"

namespace {

using namespace vmm;  // NOLINT(google-build-using-namespace): a fuzz target is one function

void check(const loader::LoadedKernel& loaded, const loader::LoadOptions& options) {
  fuzz::require(loaded.occupied.base() >= options.bounds.lowest);
  fuzz::require(loaded.occupied.end() <= options.bounds.highest);
  fuzz::require(loaded.occupied.contains(loaded.entry));
  fuzz::require(loaded.setup_header.size() <= 0x290 - 0x1f1);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const GuestMemory memory = fuzz::ram();
  const auto image = loader::KernelImage::parse(fuzz::bytes(data, size), "fuzz.img");
  if (!image) {
    fuzz::require(image.error().message().find("fuzz.img") != std::string::npos);
    return 0;
  }
  fuzz::require(!loader::describe_text(*image).empty());
  fuzz::require(!loader::describe_json(*image).empty());
  loader::LoadOptions options;
  options.bounds.lowest = fuzz::kLowest;
  options.bounds.highest = fuzz::kHighest;
  for (const BootProtocol protocol :
       {BootProtocol::kAuto, BootProtocol::kLinux64, BootProtocol::kBzimage, BootProtocol::kPvh,
        BootProtocol::kMultiboot, BootProtocol::kMultiboot2}) {
    options.protocol = protocol;
    if (const auto loaded = load_kernel(*image, memory, options)) check(*loaded, options);
  }
  options.protocol = BootProtocol::kAuto;
  options.kaslr = loader::Kaslr{[] { return 1; }, {memory.regions().front().range()}};
  if (const auto loaded = load_kernel(*image, memory, options)) check(*loaded, options);
  return 0;
}
