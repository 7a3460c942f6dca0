#include "vmm/trace/exit_places.h"

#include <gtest/gtest.h>

#include <array>

#include "vmm/trace/describe_exit.h"
#include "vmm/trace/exit_text.h"

namespace vmm {
namespace {

std::map<ExitPlace, std::uint64_t> all(const ExitPlaces& places) {
  std::map<ExitPlace, std::uint64_t> counts;
  places.add_to(counts);
  return counts;
}

TEST(ExitPlaces, Count_tellsKindsDirectionsAndAddressesApart) {
  ExitPlaces places;
  for (int i = 0; i < 3; ++i)
    places.count({.address = 0x3f8, .kind = 0, .width = 1, .is_write = true});
  places.count({.address = 0x3f8, .kind = 0, .width = 1});
  places.count({.address = 0x3f8, .kind = 1, .width = 1});
  const std::map<ExitPlace, std::uint64_t> expected{
      {{0, true, 0x3f8}, 3}, {{0, false, 0x3f8}, 1}, {{1, false, 0x3f8}, 1}};
  EXPECT_EQ(all(places), expected);
  EXPECT_EQ(places.unlisted(), 0U);
}

TEST(ExitPlaces, Count_noiseDoesNotDisplaceWhatMatters) {
  ExitPlaces places;
  for (std::uint64_t i = 0; i < 100'000; ++i) {
    places.count({.address = 0x3f8, .kind = 0, .width = 1, .is_write = true});
    places.count({.address = 0xd0000000 + i * 4, .kind = 1, .width = 4});
  }
  const auto counts = all(places);
  EXPECT_EQ(counts.at({0, true, 0x3f8}), 100'000U);
  EXPECT_LE(counts.size(), 256U);
  std::uint64_t sum = places.unlisted();
  for (const auto& [place, count] : counts) sum += count;
  EXPECT_EQ(sum, 200'000U);  // none is lost
}

TEST(DescribeExit, Accesses_haveAddressAndValue) {
  std::array<std::byte, 4> bytes{std::byte{1}, std::byte{2}};
  const VcpuExit write = PioExit{
      .port = 0x80, .width = 2, .count = 1, .is_write = true, .data = std::span(bytes).first(2)};
  const ExitRecord record = describe_exit(write, 0x1234);
  EXPECT_EQ(exit_text(record), "#0 pio write 0x80 width 2 value 0x201 rip 0x1234");
  EXPECT_EQ(value_read(write), std::nullopt);

  const VcpuExit read = MmioExit{.address = Gpa(0xfee00020), .is_write = false, .data = bytes};
  EXPECT_EQ(exit_text(describe_exit(read, 0)), "#0 mmio read 0xfee00020 width 4 value 0x0");
  EXPECT_EQ(value_read(read), 0x201U);  // when it has been handled
}

TEST(DescribeExit, Others_haveWhatKvmSays) {
  const VcpuExit msr = MsrExit{.index = 0xc0000082, .is_write = true, .value = 5};
  EXPECT_EQ(exit_text(describe_exit(msr, 0)), "#0 msr write 0xc0000082 width 8 value 0x5");
  const VcpuExit failure = EmulationFailureExit{.bytes = {0x0f, 0xff}, .size = 2};
  EXPECT_EQ(exit_text(describe_exit(failure, 0)),
            "#0 emulation-failure at bytes 0f ff 00 00 00 00 00 00");
  EXPECT_EQ(exit_text(describe_exit(VcpuExit(UnknownExit{.reason = 99}), 0)), "#0 unknown 0x63");
  EXPECT_EQ(exit_text(describe_exit(VcpuExit(HltExit{}), 0)), "#0 hlt");
}

}  // namespace
}  // namespace vmm
