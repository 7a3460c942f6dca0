#include "vmm/loader/kaslr.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "test_memory.h"
#include "vmm/loader/load_kernel.h"
#include "vmm/loader/relocations.h"

namespace vmm::loader {
namespace {

using test::Bytes;
using ::testing::HasSubstr;

constexpr std::uint64_t kLinked = 0x1000000;

GpaRange range(std::uint64_t base, std::uint64_t size) {
  return GpaRange::create(Gpa(base), size).value();
}

Kaslr fixed(std::uint64_t random, std::vector<GpaRange> usable) {
  return {[random] { return random; }, std::move(usable)};
}

Bytes table_bytes(const std::vector<std::vector<std::uint32_t>>& lists) {
  Bytes bytes;
  for (const auto& list : lists) {
    bytes.resize(bytes.size() + 4);
    for (const std::uint32_t word : list) {
      bytes.resize(bytes.size() + 4);
      test::put32(bytes, bytes.size() - 4, word);
    }
  }
  return bytes;
}

// The word of the table for a linked physical address.
constexpr std::uint32_t word(std::uint64_t address) {
  return static_cast<std::uint32_t>(0x80000000U + address);
}

Bytes kernel_with(Bytes table) {
  test::ElfSpec elf = test::linux_elf();
  elf.segments[0].bytes = Bytes(0x3000);
  test::put64(elf.segments[0].bytes, 0x100, 0xffffffff81000000);
  test::put32(elf.segments[0].bytes, 0x204, 0x81000010);
  test::put32(elf.segments[0].bytes, 0x302, 0x00100000);
  elf.tail = std::move(table);
  test::BzImageSpec spec;
  spec.payload = test::build_elf(elf);
  spec.compression = Compression::kLz4Legacy;
  return test::build_bzimage(spec);
}

Bytes good_table() {
  return table_bytes({{word(kLinked + 0x100)}, {word(kLinked + 0x302)}, {word(kLinked + 0x204)}});
}

Result<LoadedKernel> load(const Bytes& file, const GuestMemory& memory, std::uint64_t random) {
  const KernelImage image = VMM_TRY(KernelImage::parse(file, "kernel.img"));
  LoadOptions options;
  options.kaslr = fixed(random, {range(MiB(1), MiB(63))});
  return load_kernel(image, memory, options);
}

TEST(LoadWithKaslr, MovesTheKernelAndItsWords) {
  const GuestMemory memory = ram();
  const auto loaded = load(kernel_with(good_table()), memory, 3);
  ASSERT_TRUE(loaded) << loaded.error().message();
  const std::uint64_t slide = 3 * MiB(2);
  EXPECT_TRUE(loaded->kaslr);
  EXPECT_EQ(loaded->kaslr_slide, slide);
  EXPECT_EQ(loaded->entry, Gpa(kLinked + slide));
  EXPECT_EQ(loaded->occupied, range(kLinked + slide, 0x8000));
  const Gpa base(kLinked + slide);
  EXPECT_EQ(memory.read<std::uint64_t>(*base.plus(0x100)).value(), 0xffffffff81000000 + slide);
  EXPECT_EQ(memory.read<std::uint32_t>(*base.plus(0x204)).value(), 0x81000010 + slide);
  EXPECT_EQ(memory.read<std::uint32_t>(*base.plus(0x302)).value(),
            static_cast<std::uint32_t>(0x00100000 - slide));
  EXPECT_THAT(loaded->notes.back(), HasSubstr("3 relocations"));
}

TEST(LoadWithKaslr, KnowsTheTableWithoutAnInverseList) {
  const GuestMemory memory = ram();
  const Bytes file = kernel_with(table_bytes({{word(kLinked + 0x100)}, {word(kLinked + 0x204)}}));
  const auto loaded = load(file, memory, 1);
  ASSERT_TRUE(loaded) << loaded.error().message();
  const Gpa base(kLinked + MiB(2));
  EXPECT_EQ(memory.read<std::uint64_t>(*base.plus(0x100)).value(), 0xffffffff81200000);
  EXPECT_EQ(memory.read<std::uint32_t>(*base.plus(0x204)).value(), 0x81200010);
  EXPECT_EQ(memory.read<std::uint32_t>(*base.plus(0x302)).value(), 0x00100000U);
}

TEST(LoadWithKaslr, WithoutItNothingMoves) {
  const GuestMemory memory = ram();
  const Bytes file = kernel_with(good_table());
  const auto image = KernelImage::parse(file, "kernel.img");
  const auto loaded = load_kernel(*image, memory, {});
  ASSERT_TRUE(loaded) << loaded.error().message();
  EXPECT_FALSE(loaded->kaslr);
  EXPECT_EQ(memory.read<std::uint64_t>(Gpa(kLinked + 0x100)).value(), 0xffffffff81000000);
}

TEST(LoadWithKaslr, RefusesKernelsWithoutATable) {
  const auto loaded = load(kernel_with({}), ram(), 1);
  ASSERT_FALSE(loaded);
  EXPECT_THAT(loaded.error().message(), HasSubstr("kernel.img"));
  EXPECT_THAT(loaded.error().message(), HasSubstr("no relocation table"));
}

TEST(LoadWithKaslr, RefusesKernelsThatCannotMove) {
  Bytes file = kernel_with(good_table());
  file[0x234] = std::byte{0};
  const auto loaded = load(file, ram(), 1);
  ASSERT_FALSE(loaded);
  EXPECT_THAT(loaded.error().message(), HasSubstr("relocatable_kernel"));
}

TEST(LoadWithKaslr, RefusesThePvhEntry) {
  const Bytes file = kernel_with(good_table());
  const auto image = KernelImage::parse(file, "kernel.img");
  LoadOptions options;
  options.protocol = BootProtocol::kPvh;
  options.kaslr = fixed(1, {range(MiB(1), MiB(63))});
  EXPECT_FALSE(load_kernel(*image, ram(), options));
}

TEST(LoadWithKaslr, EachTargetMustBeInTheLoadedBytes) {
  const std::uint64_t outside[] = {
      0,                     // below the kernel
      kLinked - 4,           // just below
      kLinked + 0x3000,      // between the segments
      kLinked + 0x3000 - 3,  // across the end of a segment
      kLinked + 0x5800,      // .bss
      kLinked + 0x100000,    // above
      0x7ffffffc,            // the top of the virtual map
  };
  for (const std::uint64_t address : outside) {
    for (std::size_t list = 0; list < 3; ++list) {
      std::vector<std::vector<std::uint32_t>> lists(3);
      lists[list] = {word(kLinked + 0x100), word(address)};
      const auto loaded = load(kernel_with(table_bytes(lists)), ram(), 1);
      ASSERT_FALSE(loaded) << address;
      EXPECT_THAT(loaded.error().message(), HasSubstr("lies in no loaded segment"));
    }
  }
}

TEST(ParseRelocations, RefusesOtherForms) {
  EXPECT_FALSE(parse_relocations(test::pattern(6)));
  EXPECT_FALSE(parse_relocations(table_bytes({{1}, {2}, {3}, {4}})));
  Bytes no_zero(4);
  test::put32(no_zero, 0, word(kLinked));
  EXPECT_FALSE(parse_relocations(no_zero));
  EXPECT_EQ(parse_relocations({}).value(), std::nullopt);
}

ElfHeaders headers(std::uint64_t base, std::uint64_t size) {
  ElfHeaders elf;
  elf.is_64bit = true;
  ElfSegment segment;
  segment.memory = range(base, size);
  elf.segments.push_back(segment);
  return elf;
}

TEST(ChooseSlide, ReachesEverySlotAndNoOther) {
  const ElfHeaders elf = headers(kLinked, MiB(7));
  const std::vector<GpaRange> usable{range(0, MiB(26)), range(MiB(40), MiB(9))};
  std::set<std::uint64_t> slides;
  for (std::uint64_t random = 0; random < 20; ++random) {
    slides.insert(
        choose_slide(fixed(random, usable), elf, MiB(2), Gpa(MiB(1)), Gpa(GiB(4))).value());
  }
  EXPECT_THAT(slides, ::testing::ElementsAre(0, MiB(2), MiB(24), MiB(26)));
}

TEST(ChooseSlide, KeepsToTheVirtualMapOfLinux) {
  const ElfHeaders elf = headers(kLinked, MiB(32));
  const auto slide =
      choose_slide(fixed(~0ULL, {range(0, GiB(3))}), elf, MiB(16), Gpa(0), Gpa(GiB(4)));
  ASSERT_TRUE(slide);
  EXPECT_LE(kLinked + *slide + MiB(32), GiB(1));
  const ElfHeaders huge = headers(kLinked, GiB(1));
  EXPECT_FALSE(choose_slide(fixed(1, {range(0, GiB(3))}), huge, MiB(2), Gpa(0), Gpa(GiB(4))));
}

TEST(ChooseSlide, RefusesWhatFitsNowhereAndOddAlignments) {
  const ElfHeaders elf = headers(kLinked, MiB(8));
  const Kaslr small = fixed(0, {range(0, MiB(20))});
  EXPECT_FALSE(choose_slide(small, elf, MiB(2), Gpa(0), Gpa(GiB(4))));
  EXPECT_FALSE(choose_slide(fixed(0, {}), elf, MiB(2), Gpa(0), Gpa(GiB(4))));
  const Kaslr large = fixed(0, {range(0, MiB(64))});
  EXPECT_TRUE(choose_slide(large, elf, MiB(2), Gpa(0), Gpa(GiB(4))));
  EXPECT_FALSE(choose_slide(large, elf, 0, Gpa(0), Gpa(GiB(4))));
  EXPECT_FALSE(choose_slide(large, elf, MiB(3), Gpa(0), Gpa(GiB(4))));
  EXPECT_FALSE(choose_slide(large, elf, 1ULL << 63, Gpa(MiB(17)), Gpa(GiB(4))));
}

}  // namespace
}  // namespace vmm::loader
