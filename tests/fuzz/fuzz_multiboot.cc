// Any bytes as a Multiboot image of both versions: header, placement, sections.
//
// The first byte chooses where the rest is put in a larger file, so that headers are found at other
// places than the start.
#include <cstdint>
#include <vector>

#include "fuzz/fuzz_input.h"
#include "vmm/loader/load_multiboot.h"

namespace {

using namespace vmm;  // NOLINT(google-build-using-namespace): a fuzz target is one function

const GpaRange kTaken = GpaRange::create(Gpa(fuzz::kLowest.value + 0x80000), 0x1000).value();

void check(const loader::LoadedKernel& loaded, const loader::LoadBounds& bounds) {
  fuzz::require(loaded.occupied.base() >= bounds.lowest);
  fuzz::require(loaded.occupied.end() <= bounds.highest);
  fuzz::require(loaded.occupied.contains(loaded.entry));
  if (!loaded.sections) return;
  const loader::ElfSections& sections = *loaded.sections;
  fuzz::require(loaded.occupied.contains(sections.memory) || sections.memory.empty());
  fuzz::require(!sections.memory.overlaps(kTaken));
  fuzz::require(sections.headers.size() == std::size_t{sections.count} * sections.entry_size);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const GuestMemory memory = fuzz::ram();
  if (size == 0) return 0;
  std::vector<std::byte> file(std::size_t{data[0]} * 64);
  const auto rest = fuzz::bytes(data + 1, size - 1);
  file.insert(file.end(), rest.begin(), rest.end());
  const auto image = loader::KernelImage::parse(file, "fuzz.mb");
  if (!image) return 0;
  loader::LoadOptions options;
  options.bounds = {fuzz::kLowest, fuzz::kHighest, {kTaken}};
  for (const auto version : {loader::MultibootVersion::k1, loader::MultibootVersion::k2}) {
    const auto entry = loader::multiboot_entry(*image, version);
    const auto loaded = load_multiboot(*image, memory, options, version);
    if (loaded) check(*loaded, options.bounds);
    // What can be loaded has an entry to tell.
    fuzz::require(entry || !loaded);
  }
  return 0;
}
