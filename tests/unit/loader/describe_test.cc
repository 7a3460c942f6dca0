#include "vmm/loader/describe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "test_memory.h"

namespace vmm::loader {
namespace {

using test::Bytes;
using ::testing::HasSubstr;
using ::testing::Not;

std::string text_of(const Bytes& file) {
  return describe_text(KernelImage::parse(file, "dir/kernel.img").value());
}

nlohmann::json json_of(const Bytes& file) {
  return nlohmann::json::parse(describe_json(KernelImage::parse(file, "dir/kernel.img").value()));
}

TEST(DescribeImage, TellsABzImage) {
  const std::string text = text_of(test::linux_bzimage(Compression::kLz4Legacy));
  EXPECT_THAT(text, HasSubstr("dir/kernel.img: Linux bzImage"));
  EXPECT_THAT(text, HasSubstr("boot protocol 2.15"));
  EXPECT_THAT(text, HasSubstr("6.1.0-test (builder) #1"));
  EXPECT_THAT(text, HasSubstr("LZ4 (legacy)"));
  EXPECT_THAT(text, HasSubstr("ELF64"));
  EXPECT_THAT(text, HasSubstr("KERNEL_64"));
  EXPECT_THAT(text, HasSubstr("Xen/0x12"));
  EXPECT_THAT(text, HasSubstr("KASLR is not possible"));
  EXPECT_THAT(text, HasSubstr("boots with      auto, linux64, bzimage, pvh"));
}

TEST(DescribeImage, TellsAnElf) {
  const std::string text = text_of(test::build_elf(test::linux_elf()));
  EXPECT_THAT(text, HasSubstr("dir/kernel.img: ELF,"));
  EXPECT_THAT(text, HasSubstr("boots with      auto, linux64, pvh"));
  EXPECT_THAT(text, HasSubstr("not with        bzimage: dir/kernel.img: not a bzImage"));
}

TEST(DescribeImage, SaysWhyAPayloadCannotBeRead) {
  Bytes file = test::linux_bzimage(Compression::kXz);
  file[file.size() - 200] ^= std::byte{0xff};
  const std::string text = text_of(file);
  EXPECT_THAT(text, HasSubstr("cannot be read: "));
  EXPECT_THAT(text, HasSubstr("XZ"));
  EXPECT_THAT(text, HasSubstr("boots with      bzimage\n"));
  EXPECT_FALSE(json_of(file)["boot"]["linux64"]["possible"]);
}

TEST(DescribeImage, SaysThatNothingBoots) {
  test::BzImageSpec spec;
  spec.loadflags = 0;
  EXPECT_THAT(text_of(test::build_bzimage(spec)), HasSubstr("boots with      nothing"));
}

TEST(DescribeImage, GivesTheSameAsJson) {
  const nlohmann::json json = json_of(test::linux_bzimage(Compression::kZstd));
  EXPECT_EQ(json["format"], "Linux bzImage");
  EXPECT_EQ(json["compression"], "zstd");
  EXPECT_EQ(json["setup_header"]["version"], 0x20f);
  EXPECT_EQ(json["setup_header"]["kernel_version"], "6.1.0-test (builder) #1");
  EXPECT_EQ(json["kernel"]["class"], 64);
  EXPECT_EQ(json["kernel"]["entry"], 0x1000000);
  EXPECT_EQ(json["kernel"]["pvh_entry"], 0x1000100);
  EXPECT_EQ(json["kernel"]["segments"].size(), 2U);
  EXPECT_TRUE(json["kernel"]["relocations"].is_null());
  EXPECT_TRUE(json["boot"]["pvh"]["possible"]);
}

TEST(DescribeImage, ShowsNoControlCharactersOfTheFile) {
  test::BzImageSpec spec;
  spec.version_string = "evil\x1b[31m\n";
  EXPECT_THAT(text_of(test::build_bzimage(spec)), HasSubstr("evil?[31m?"));
  EXPECT_THAT(text_of(test::build_bzimage(spec)), Not(HasSubstr("\x1b")));
}

}  // namespace
}  // namespace vmm::loader
