#include "vmm/loader/initrd.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "support/initrds.h"
#include "test_memory.h"
#include "vmm/loader/cpio_unpack.h"

namespace vmm::loader {
namespace {

using test::Bytes;
using ::testing::HasSubstr;

InitrdOptions below(std::uint64_t highest, bool unpack = false) {
  InitrdOptions options;
  options.kernel = GpaRange::create(Gpa(MiB(16)), MiB(8)).value();
  options.highest = Gpa(highest);
  options.unpack = unpack;
  return options;
}

Bytes loaded_bytes(const GuestMemory& memory, const LoadedInitrd& loaded) {
  return bytes_at(memory, loaded.range.base().value, loaded.range.size());
}

TEST(LoadInitrd, LiesAsHighAsItMay) {
  const GuestMemory memory = ram(MiB(64));
  const Bytes initrd = test::pattern(10000);
  const auto at_top = load_initrd(initrd, "initrd", memory, below(GiB(2)));
  ASSERT_TRUE(at_top) << at_top.error().message();
  EXPECT_EQ(at_top->range, GpaRange::create(Gpa(MiB(64) - 0x3000), 10000).value());
  EXPECT_TRUE(loaded_bytes(memory, *at_top) == initrd);
  const auto at_limit = load_initrd(initrd, "initrd", memory, below(MiB(32)));
  ASSERT_TRUE(at_limit);
  EXPECT_EQ(at_limit->range.base(), Gpa(MiB(32) - 0x3000));
}

TEST(LoadInitrd, GoesBelowTheKernelWhenThereIsNoRoomAbove) {
  const GuestMemory memory = ram(MiB(64));
  const auto loaded = load_initrd(Bytes(MiB(9)), "initrd", memory, below(MiB(32)));
  ASSERT_TRUE(loaded) << loaded.error().message();
  EXPECT_EQ(loaded->range.base(), Gpa(MiB(7)));
}

TEST(LoadInitrd, RefusesWhatDoesNotFitWithTheNumbers) {
  const auto loaded = load_initrd(Bytes(MiB(16)), "big.img", ram(MiB(32)), below(GiB(2)));
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().code(), ErrorCode::kBadKernel);
  EXPECT_THAT(loaded.error().message(), HasSubstr("big.img"));
  EXPECT_THAT(loaded.error().message(), HasSubstr("16 MiB"));
  EXPECT_THAT(loaded.error().message(), HasSubstr("room for 15 MiB"));
}

TEST(LoadInitrd, FillsTheRoomExactly) {
  EXPECT_TRUE(load_initrd(Bytes(MiB(15)), "initrd", ram(MiB(24)), below(GiB(2))));
  EXPECT_FALSE(load_initrd(Bytes(MiB(15) + 1), "initrd", ram(MiB(24)), below(GiB(2))));
}

TEST(LoadInitrd, RefusesAnEmptyOne) {
  EXPECT_FALSE(load_initrd(Bytes(), "initrd", ram(), below(GiB(2))));
}

TEST(LoadInitrd, ComesFromAFile) {
  const std::filesystem::path path = ::testing::TempDir() + "/vmm_loader_test.initrd";
  const Bytes initrd = test::pattern(5000);
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(initrd.data()),
             static_cast<std::streamsize>(initrd.size()));
  const GuestMemory memory = ram();
  const auto loaded = load_initrd(path, memory, below(GiB(2)));
  const auto unpacked = load_initrd(path, memory, below(GiB(2), true));
  std::filesystem::remove(path);
  ASSERT_TRUE(loaded) << loaded.error().message();
  EXPECT_TRUE(loaded_bytes(memory, *loaded) == initrd);
  ASSERT_TRUE(unpacked) << unpacked.error().message();
  EXPECT_THAT(unpacked->notes.front(), HasSubstr("not unpacked"));
}

TEST(LoadInitrd, NamesAFileThatIsMissingOrNoFile) {
  const auto missing = load_initrd("/nonexistent/initrd", ram(), below(GiB(2)));
  ASSERT_FALSE(missing);
  EXPECT_THAT(missing.error().message(), HasSubstr("/nonexistent/initrd"));
  const auto directory = load_initrd(std::filesystem::path("/"), ram(), below(GiB(2)));
  ASSERT_FALSE(directory);
  EXPECT_THAT(directory.error().message(), HasSubstr("not a regular file"));
}

class UnpackInitrd : public ::testing::TestWithParam<Compression> {};
INSTANTIATE_TEST_SUITE_P(AllFormats, UnpackInitrd, ::testing::ValuesIn(test::kAllCompressions),
                         test_name);

TEST_P(UnpackInitrd, UnpacksBehindAPlainArchive) {
  const Bytes microcode = test::cpio("kernel/x86/microcode/x.bin", "early");
  const Bytes root = test::cpio("init", "#!/bin/sh\n");
  Bytes initrd = microcode;
  test::pad(initrd, 512);
  test::append(initrd, test::compress(GetParam(), root));
  Bytes expected = microcode;
  test::pad(expected, 512);
  test::append(expected, root);

  const GuestMemory memory = ram();
  const auto loaded = load_initrd(initrd, "initrd", memory, below(GiB(2), true));
  ASSERT_TRUE(loaded) << loaded.error().message();
  EXPECT_TRUE(loaded_bytes(memory, *loaded) == expected);
  EXPECT_THAT(loaded->notes.front(), HasSubstr(std::string(to_string(GetParam()))));
}

TEST_P(UnpackInitrd, UnpacksSeveral) {
  const Bytes one = test::cpio("one", "1");
  const Bytes two = test::cpio("two", "22");
  Bytes initrd = test::compress(GetParam(), one);
  test::pad(initrd, 4);
  test::append(initrd, Bytes(8));
  test::append(initrd, test::compress(GetParam(), two));
  const auto unpacked = unpack_initrd(initrd, MiB(1));
  ASSERT_TRUE(unpacked) << unpacked.error().message();
  EXPECT_EQ(unpacked->unpacked, 2U);
  Bytes expected = one;
  test::pad(expected, 512);
  test::append(expected, two);
  EXPECT_TRUE(std::ranges::equal(unpacked->bytes(), expected));
}

TEST_P(UnpackInitrd, KeepsABombAsItIs) {
  Bytes bomb = test::cpio("a", std::string(MiB(2), 'x'));
  const Bytes initrd = test::compress(GetParam(), bomb);
  const GuestMemory memory = ram(MiB(25));
  InitrdOptions options = below(GiB(2), true);
  options.lowest = Gpa(MiB(24));  // 1 MiB of room
  const auto loaded = load_initrd(initrd, "initrd", memory, options);
  ASSERT_TRUE(loaded) << loaded.error().message();
  EXPECT_TRUE(loaded_bytes(memory, *loaded) == initrd);
  EXPECT_THAT(loaded->notes.front(), HasSubstr("not unpacked on the host"));
}

TEST_P(UnpackInitrd, KeepsWhatIsCutOffAsItIs) {
  Bytes initrd = test::compress(GetParam(), test::cpio("init", std::string(5000, 'x')));
  initrd.resize(initrd.size() / 2);
  const GuestMemory memory = ram();
  const auto loaded = load_initrd(initrd, "initrd", memory, below(GiB(2), true));
  ASSERT_TRUE(loaded) << loaded.error().message();
  EXPECT_TRUE(loaded_bytes(memory, *loaded) == initrd);
  EXPECT_FALSE(loaded->notes.empty());
}

TEST(UnpackPlainInitrd, ChangesNothing) {
  Bytes initrd = test::cpio("init", "#!/bin/sh\n");
  test::append(initrd, Bytes(100));
  const GuestMemory memory = ram();
  const auto loaded = load_initrd(initrd, "initrd", memory, below(GiB(2), true));
  ASSERT_TRUE(loaded);
  EXPECT_TRUE(loaded_bytes(memory, *loaded) == initrd);
  EXPECT_TRUE(loaded->notes.empty());
}

TEST(UnpackPlainInitrd, NamesJunk) {
  Bytes initrd = test::cpio("init", "x");
  test::append(initrd, test::to_bytes("junk"));
  const auto unpacked = unpack_initrd(initrd, MiB(1));
  ASSERT_FALSE(unpacked);
  EXPECT_THAT(unpacked.error().message(), HasSubstr("neither a cpio archive"));
}

TEST(UnpackPlainInitrd, RefusesEntriesThatEndOutside) {
  Bytes initrd = test::cpio("init", "x");
  std::ranges::copy(test::to_bytes("ffffffff"), initrd.begin() + 54);  // c_filesize
  const auto unpacked = unpack_initrd(initrd, MiB(1));
  ASSERT_FALSE(unpacked);
  EXPECT_THAT(unpacked.error().message(), HasSubstr("c_filesize 0xffffffff"));
}

TEST(UnpackPlainInitrd, RefusesPackedFilesThatAreNoArchive) {
  const auto unpacked =
      unpack_initrd(test::compress(Compression::kGzip, test::pattern(500)), MiB(1));
  ASSERT_FALSE(unpacked);
  EXPECT_THAT(unpacked.error().message(), HasSubstr("no cpio archive"));
}

}  // namespace
}  // namespace vmm::loader
