// Files of snapshots: what is written comes back, and whatever is wrong with one is said.
#include "vmm/snapshot/snapshot_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/crc32c.h"
#include "base/size.h"
#include "tests/support/scratch_directory.h"
#include "vmm/snapshot/snapshot.h"
#include "vmm/x86/layout.h"

namespace vmm {
namespace {

using test::read_file;
using testing::HasSubstr;

constexpr std::uint64_t kMemory = KiB(64);
// Where the header has what the tests change (snapshot_file.cc).
constexpr std::size_t kWholeHeaderSize = 88, kIncrementHeaderSize = 112;
constexpr std::size_t kHeaderSize = kWholeHeaderSize, kHeaderCrc = 12, kFileSize = 16,
                      kStateOffset = 40, kStateSize = 48, kStateCrc = 56, kPagesOffset = 64,
                      kPagesCrc = 80;

WholeState small_state() {
  WholeState state;
  state.machine.shape.memory = kMemory;
  state.machine.cpus.resize(1);
  state.machine.cpus[0].xsave.bytes.resize(16);
  state.machine.cpus[0].msrs = {{0x10, 5}};
  state.machine.tsc_khz = 2'000'000;
  state.machine.files = {{"etc/one", Blob{{std::byte{1}, std::byte{2}}}}};
  state.devices.emplace("uart0",
                        StateDocument(nlohmann::json{{"type", "uart16550"}, {"version", 1}}));
  return state;
}

class SnapshotFiles : public testing::Test {
 protected:
  void SetUp() override {
    std::vector<GuestRegion> regions;
    for (const GpaRange& range : x86::ram_ranges(kMemory)) {
      regions.push_back(GuestRegion::create(range, {}).value());
    }
    const GuestMemory memory = GuestMemory::create(std::move(regions)).value();
    ASSERT_TRUE(memory.write(Gpa(0x3000), std::uint64_t{42}));
    auto file = RamImage::create_memory_file(kMemory);
    auto ram = RamImage::copy_of(memory, nullptr, *std::move(file), {});
    ASSERT_TRUE(ram) << ram.error().message();
    snapshot = std::make_shared<const Snapshot>(small_state(), *std::move(ram));
    const auto written = snapshot->write(path);
    ASSERT_TRUE(written) << written.error().message();
    bytes = read_file(path);
    ASSERT_GT(bytes.size(), 4096 + kMemory);
  }

  template <typename T>
  T get(std::size_t at) const {
    T value;
    std::memcpy(&value, bytes.data() + at, sizeof value);
    return value;
  }
  template <typename T>
  static void put(std::vector<std::byte>& file, std::size_t at, T value) {
    std::memcpy(file.data() + at, &value, sizeof value);
  }
  // Checksums as somebody would make them who wants to be believed.
  void sign(std::vector<std::byte>& file) const {
    const auto section = [&](std::size_t offset) {
      std::uint64_t place[2];
      std::memcpy(place, file.data() + offset, sizeof place);
      return crc32c(std::span(file).subspan(place[0], place[1]));
    };
    put(file, kStateCrc, section(kStateOffset));
    put(file, kPagesCrc, section(kPagesOffset));
    put(file, kHeaderCrc, std::uint32_t{0});
    put(file, kHeaderCrc, crc32c(std::span(file).first(kHeaderSize)));
  }
  // What opening such a file says; empty: it can be opened.
  std::string open(const std::vector<std::byte>& file) const {
    const std::string other = scratch.file("other");
    test::write_file(other, file);
    const auto opened = Snapshot::open(other);
    return opened ? std::string() : opened.error().message();
  }

  test::ScratchDirectory scratch;
  const std::string path = scratch.file("a.snap");
  std::shared_ptr<const Snapshot> snapshot;
  std::vector<std::byte> bytes;
};

TEST_F(SnapshotFiles, WhatIsWritten_comesBack) {
  const auto read = Snapshot::open(path);
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_EQ((*read)->state().machine, snapshot->state().machine);
  EXPECT_EQ((*read)->state().devices, snapshot->state().devices);
  EXPECT_EQ((*read)->to_json(), snapshot->to_json());
  EXPECT_TRUE((*read)->verify());
  const GuestMemory memory = (*read)->ram().map().value();
  EXPECT_EQ(memory.read<std::uint64_t>(Gpa(0x3000)).value(), 42U);
}

TEST_F(SnapshotFiles, File_isItsOwnersOnly) {
  struct stat status {};
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600U);
}

TEST_F(SnapshotFiles, Truncated_isRefusedAtEveryLength) {
  for (std::size_t size = 0; size < bytes.size();
       size += size < 100 || size > 4090 + kMemory ? 1 : 1021) {
    const std::string said = open({bytes.begin(), bytes.begin() + static_cast<long>(size)});
    ASSERT_THAT(said, HasSubstr("Read the snapshot")) << size << " bytes";
  }
}

TEST_F(SnapshotFiles, Longer_isRefused) {
  bytes.push_back(std::byte{0});
  EXPECT_THAT(open(bytes), HasSubstr("when it was written"));
}

TEST_F(SnapshotFiles, AFlippedBit_inAnyByteOfHeaderStateAndPageListIsSeen) {
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    if (at == kHeaderSize) at = 4096 + kMemory;
    const std::byte bit = std::byte{1} << (at % 8);
    bytes[at] ^= bit;
    ASSERT_NE(open(bytes), "") << "byte " << at;
    bytes[at] ^= bit;
  }
}

TEST_F(SnapshotFiles, FlippedMemory_isSeenByVerify) {
  bytes[4096 + 0x3001] ^= std::byte{1};
  test::write_file(path, bytes);
  const auto read = Snapshot::open(path);
  ASSERT_TRUE(read) << "memory is not read by opening";
  const auto verified = (*read)->verify();
  ASSERT_FALSE(verified);
  EXPECT_THAT(verified.error().message(), HasSubstr("damaged"));
}

// Somebody who can make checksums: anything may come, but neither a crash nor more than an error.
TEST_F(SnapshotFiles, EveryChangedByteWithGoodChecksums_isReadOrRefused) {
  int refused = 0;
  for (std::size_t at = kStateOffset; at < bytes.size(); ++at) {
    if (at == kHeaderSize) at = 4096 + kMemory;
    const std::byte was = bytes[at];
    for (const int value : {at % 2 == 0 ? 0x00 : 0x9f, at % 3 == 0 ? 0x7f : 0xff}) {
      std::vector<std::byte> file = bytes;
      file[at] = std::byte(value);
      const auto state = get<std::uint64_t>(kStateOffset);
      if (at >= state) sign(file);
      refused += open(file).empty() ? 0 : 1;
    }
    bytes[at] = was;
  }
  EXPECT_GT(refused, 100);
}

TEST_F(SnapshotFiles, DeepNesting_isRefusedAndNotFollowed) {
  const auto state = static_cast<std::size_t>(get<std::uint64_t>(kStateOffset));
  const auto size = static_cast<std::size_t>(get<std::uint64_t>(kStateSize));
  for (std::size_t i = 0; i + 1 < size; ++i) bytes[state + i] = std::byte{0x81};
  sign(bytes);
  EXPECT_THAT(open(bytes), HasSubstr("CBOR"));
}

TEST_F(SnapshotFiles, OtherVersion_isNamed) {
  bytes[8] = std::byte{9};
  sign(bytes);
  EXPECT_THAT(open(bytes), HasSubstr("version 9"));
}

TEST_F(SnapshotFiles, SomethingElse_isNoSnapshot) {
  EXPECT_THAT(open(std::vector<std::byte>(5000, std::byte{1})), HasSubstr("no snapshot"));
  EXPECT_FALSE(Snapshot::is_snapshot("/dev/null"));
  EXPECT_TRUE(Snapshot::is_snapshot(path));
  const auto directory = Snapshot::open(scratch.file("."));
  EXPECT_FALSE(directory);
}

// Increments: each of the last one, in a file "1", "2", ...
class Increments : public SnapshotFiles {
 protected:
  // One of the file `base`, in which a word of memory is `value`.
  void make(const std::string& file, const std::string& base, std::uint64_t value) {
    const auto earlier = Snapshot::open(base);
    ASSERT_TRUE(earlier) << earlier.error().message();
    const GuestMemory memory = (*earlier)->ram().map().value();
    ASSERT_TRUE(memory.write(Gpa(0x5000), value));
    auto to = SnapshotFile::create(file);
    ASSERT_TRUE(to) << to.error().message();
    const auto ram = RamImage::changes_of(memory, &(*earlier)->ram(), (*earlier)->ram(), nullptr,
                                          *to->ram_file(),
                                          {.offset = SnapshotFile::kRamOffset, .checksums = true});
    ASSERT_TRUE(ram) << ram.error().message();
    const SnapshotBase on{.id = (*earlier)->id(), .name = name_of_base(file, base).value()};
    ASSERT_TRUE(to->seal(small_state(), *ram, &on));
    ASSERT_TRUE(to->commit());
  }
  void SetUp() override {
    SnapshotFiles::SetUp();
    make(first, path, 1);
    make(second, first, 2);
  }
  static std::string error_of(const std::string& file) {
    const auto opened = Snapshot::open(file);
    return opened ? std::string() : opened.error().message();
  }
  const std::string first = scratch.file("1"), second = scratch.file("2");
};

TEST_F(Increments, HaveTheBasesMemoryAndTheirOwn) {
  const auto read = Snapshot::open(second);
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_TRUE((*read)->verify());
  const GuestMemory memory = (*read)->ram().map().value();
  EXPECT_EQ(memory.read<std::uint64_t>(Gpa(0x3000)).value(), 42U);
  EXPECT_EQ(memory.read<std::uint64_t>(Gpa(0x5000)).value(), 2U);
  ASSERT_TRUE((*read)->file());
  EXPECT_EQ((*read)->file()->base, "1");
  EXPECT_EQ((*read)->file()->base_id, (*Snapshot::open(first))->file()->id);
  EXPECT_EQ((*read)->file()->stored, 4096U);
  EXPECT_EQ((*read)->stored_bytes(), 8192U);
}

TEST_F(Increments, WithoutTheirBase_SayWhichOneIsMissing) {
  ASSERT_EQ(::unlink(path.c_str()), 0);
  EXPECT_THAT(error_of(second), testing::AllOf(HasSubstr("Its base"), HasSubstr("a.snap")));
}

TEST_F(Increments, OnAnotherBase_areRefused) {
  make(first, path, 3);
  EXPECT_THAT(error_of(second), HasSubstr("another snapshot than the one that it was made on"));
}

// As with whole files: opening reads no memory, verifying reads that of all.
TEST_F(Increments, OnABaseWithDamagedMemory_areFoundOutByVerify) {
  std::vector<std::byte> base = read_file(path);
  base[4096 + 0x3001] ^= std::byte{1};
  test::write_file(path, base);
  const auto opened = Snapshot::open(second);
  ASSERT_TRUE(opened) << opened.error().message();
  const auto verified = (*opened)->verify();
  ASSERT_FALSE(verified);
  EXPECT_THAT(verified.error().message(),
              testing::AllOf(HasSubstr("a.snap"), HasSubstr("damaged")));
}

TEST_F(Increments, CanBe64Deep) {
  std::string last = second;
  for (unsigned i = 3; i <= kMostBases; ++i) {
    const std::string next = scratch.file(std::to_string(i));
    make(next, last, i);
    last = next;
  }
  const auto deepest = Snapshot::open(last);
  ASSERT_TRUE(deepest) << deepest.error().message();
  EXPECT_TRUE((*deepest)->verify());
  const GuestMemory memory = (*deepest)->ram().map().value();
  EXPECT_EQ(memory.read<std::uint64_t>(Gpa(0x3000)).value(), 42U);
  EXPECT_EQ(memory.read<std::uint64_t>(Gpa(0x5000)).value(), kMostBases);
  EXPECT_EQ((*deepest)->ram().mappings().size(), 1U) << "what is covered is not mapped";
  make(scratch.file("more"), last, 99);
  EXPECT_THAT(error_of(scratch.file("more")), HasSubstr("on more than 64 others"));
}

TEST_F(Increments, ThatAreTheirOwnBase_areRefused) {
  std::vector<std::byte> file = read_file(second);
  std::uint64_t place[2];  // of the base's section
  std::memcpy(place, file.data() + kWholeHeaderSize, sizeof place);
  file[place[0] + place[1] - 1] = std::byte{'2'};  // its name
  put(file, kWholeHeaderSize + 16, crc32c(std::span(file).subspan(place[0], place[1])));
  put(file, kHeaderCrc, std::uint32_t{0});
  put(file, kHeaderCrc, crc32c(std::span(file).first(kIncrementHeaderSize)));
  test::write_file(second, file);
  EXPECT_THAT(error_of(second), HasSubstr("on more than 64 others"));
}

TEST_F(Increments, CannotTakeTheirBasesPlace) {
  const auto name = name_of_base(path, scratch.file("./a.snap"));
  ASSERT_FALSE(name);
  EXPECT_EQ(name.error().code(), ErrorCode::kBadConfig);
}

TEST_F(Increments, Truncated_areRefusedAtEveryLength) {
  const std::vector<std::byte> whole = read_file(second);
  for (std::size_t size = 0; size < whole.size();
       size += size < 130 || size > 4090 + kMemory ? 1 : 1021) {
    ASSERT_NE(open({whole.begin(), whole.begin() + static_cast<long>(size)}), "") << size;
  }
}

TEST_F(Increments, AFlippedBitAnywhere_isSeen) {
  const auto sound = [&](const std::vector<std::byte>& bytes_now) {
    const std::string other = scratch.file("other");
    test::write_file(other, bytes_now);
    const auto opened = Snapshot::open(other);
    return opened && (*opened)->verify();
  };
  std::vector<std::byte> file = read_file(second);
  const std::size_t memory = 4096 + 0x5000;  // its page, which has one checksum
  for (std::size_t at = 0; at < file.size(); at += at >= memory && at < 4096 + kMemory ? 97 : 1) {
    if (at == kIncrementHeaderSize) at = memory;
    if (at >= memory + 4096 && at < 4096 + kMemory) at = 4096 + kMemory;
    const std::byte bit = std::byte{1} << (at % 8);
    file[at] ^= bit;
    ASSERT_FALSE(sound(file)) << "byte " << at;
    file[at] ^= bit;
  }
}

TEST_F(SnapshotFiles, NoRoom_leavesTheOldFile) {
  struct sigaction ignore {};
  struct sigaction before {};
  ignore.sa_handler = SIG_IGN;
  ASSERT_EQ(::sigaction(SIGXFSZ, &ignore, &before), 0);
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &limit), 0);
  const rlimit small{.rlim_cur = 8192, .rlim_max = limit.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const auto written = snapshot->write(path);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  ASSERT_EQ(::sigaction(SIGXFSZ, &before, nullptr), 0);
  EXPECT_FALSE(written);
  EXPECT_EQ(read_file(path), bytes);
  EXPECT_TRUE(Snapshot::open(path));
}

}  // namespace
}  // namespace vmm
