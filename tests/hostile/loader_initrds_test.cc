// Malformed initrds are loaded as they are, with a note that says why they were not unpacked.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/size.h"
#include "hostile/malformed_images.h"
#include "vmm/loader/initrd.h"

namespace vmm {
namespace {

using loader::InitrdOptions;
using loader::LoadedInitrd;
using test::Malformed;
using ::testing::HasSubstr;

GuestMemory ram() {
  std::vector<GuestRegion> regions;
  regions.push_back(GuestRegion::create(GpaRange::create(Gpa(0), MiB(8)).value(), {}).value());
  return GuestMemory::create(std::move(regions)).value();
}

InitrdOptions unpacking() {
  InitrdOptions options;
  options.kernel = GpaRange::create(Gpa(MiB(1)), MiB(3)).value();
  options.unpack = true;
  return options;
}

TEST(HostileInitrds, AreLoadedWithinTheirBounds) {
  const GuestMemory memory = ram();
  std::size_t kept = 0;
  for (const Malformed& malformed : test::malformed_initrds()) {
    SCOPED_TRACE(malformed.name);
    const auto loaded = load_initrd(malformed.file, "dir/hostile.initrd", memory, unpacking());
    if (!loaded) {
      EXPECT_TRUE(malformed.file.empty()) << loaded.error().message();
      EXPECT_THAT(loaded.error().message(), HasSubstr("dir/hostile.initrd"));
      continue;
    }
    EXPECT_TRUE(memory.contains(loaded->range));
    EXPECT_GE(loaded->range.base(), Gpa(MiB(4)));
    if (loaded->notes.empty()) continue;
    EXPECT_THAT(loaded->notes.front(), HasSubstr("dir/hostile.initrd"));
    if (loaded->notes.front().find("not unpacked") == std::string::npos) continue;
    ++kept;
    test::Bytes there(loaded->range.size());
    ASSERT_TRUE(memory.read(loaded->range.base(), there));
    EXPECT_TRUE(there == malformed.file);
  }
  EXPECT_GE(kept, 100U);
}

}  // namespace
}  // namespace vmm
