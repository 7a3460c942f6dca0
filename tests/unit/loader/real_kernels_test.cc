// Kernels as distributions and builders make them, where the environment names some.
//
//   VMM_TEST_KERNELS   kernel images of any format, separated by colons
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <sstream>

#include "test_memory.h"
#include "vmm/loader/load_kernel.h"

namespace vmm::loader {
namespace {

std::vector<std::string> kernels() {
  std::vector<std::string> paths;
  const char* const list = std::getenv("VMM_TEST_KERNELS");
  std::istringstream in(list != nullptr ? list : "");
  for (std::string path; std::getline(in, path, ':');) paths.push_back(path);
  return paths;
}

TEST(RealKernels, LoadAtTheirLinkedAddress) {
  if (kernels().empty()) GTEST_SKIP() << "VMM_TEST_KERNELS names no kernel images";
  for (const std::string& path : kernels()) {
    SCOPED_TRACE(path);
    const auto image = KernelImage::open(path);
    ASSERT_TRUE(image) << image.error().message();
    const GuestMemory memory = ram(MiB(512));
    const auto loaded = load_kernel(*image, memory, {});
    ASSERT_TRUE(loaded) << loaded.error().message();
    EXPECT_EQ(loaded->entry_kind, EntryKind::kLinux64);
    EXPECT_TRUE(loaded->occupied.contains(loaded->entry));
    // Linux's startup_64 is the first thing in the image.
    EXPECT_EQ(loaded->entry, loaded->occupied.base());
  }
}

TEST(RealKernels, MoveWhenTheyCarryRelocations) {
  if (kernels().empty()) GTEST_SKIP() << "VMM_TEST_KERNELS names no kernel images";
  for (const std::string& path : kernels()) {
    SCOPED_TRACE(path);
    const auto image = KernelImage::open(path);
    ASSERT_TRUE(image) << image.error().message();
    const auto facts = image->examine_payload();
    ASSERT_TRUE(facts) << facts.error().message();
    LoadOptions options;
    options.kaslr = Kaslr{[] { return 5; }, {GpaRange::create(Gpa(MiB(1)), MiB(511)).value()}};
    const auto loaded = load_kernel(*image, ram(MiB(512)), options);
    ASSERT_EQ(loaded.has_value(), facts->relocations.has_value())
        << (loaded ? "moved without relocations" : loaded.error().message());
    EXPECT_TRUE(!loaded || loaded->kaslr_slide != 0);
  }
}

}  // namespace
}  // namespace vmm::loader
