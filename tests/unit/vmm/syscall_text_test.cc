#include "vmm/trace/syscall_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <map>

namespace vmm {
namespace {

using testing::HasSubstr;

// A user's memory: a few texts, each alone at its address.
class Memory {
 public:
  Memory& at(std::uint64_t address, std::string bytes) {
    pieces_[address] = std::move(bytes);
    return *this;
  }
  std::size_t operator()(std::uint64_t from, std::span<std::byte> to) const {
    const auto above = pieces_.upper_bound(from);
    if (above == pieces_.begin()) return 0;
    const auto& [base, bytes] = *std::prev(above);
    if (from - base >= bytes.size()) return 0;
    const std::size_t n = std::min<std::size_t>(to.size(), bytes.size() - (from - base));
    std::memcpy(to.data(), bytes.data() + (from - base), n);
    return n;
  }

 private:
  std::map<std::uint64_t, std::string> pieces_;
};

std::string pointers(std::vector<std::uint64_t> values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof values[0]};
}

TEST(SyscallText, NumbersHaveTheNamesOfTheKernelsTable) {
  EXPECT_EQ(syscall_form(0)->name, "read");
  EXPECT_EQ(syscall_form(257)->name, "openat");
  EXPECT_EQ(syscall_form(334)->name, "rseq");
  EXPECT_EQ(syscall_form(424)->name, "pidfd_send_signal");
  EXPECT_EQ(syscall_form(450)->name, "set_mempolicy_home_node");
  for (const std::uint64_t none : {335ULL, 423ULL, 451ULL, 0x40000001ULL, ~0ULL}) {
    EXPECT_FALSE(syscall_form(none)) << none;
  }
}

TEST(SyscallText, ArgumentsAreShownAsWhatTheyAre) {
  const Memory none;
  EXPECT_EQ(syscall_text(3, {0xffffffff}, none), "close(-1)");
  EXPECT_EQ(syscall_text(8, {3, 1ULL << 33, 2}, none), "lseek(3, 8589934592, 2)");
  EXPECT_EQ(syscall_text(8, {3, ~0ULL, 1}, none), "lseek(3, -1, 1)");
  EXPECT_EQ(syscall_text(9, {0, 8192, 3, 0x22, 0xffffffff, 0}, none),
            "mmap(NULL, 8192, 0x3, 0x22, -1, 0)");
  EXPECT_EQ(syscall_text(39, {1, 2, 3}, none), "getpid()");
  EXPECT_EQ(syscall_text(91, {5, 0644}, none), "fchmod(5, 0644)");
  EXPECT_EQ(syscall_text(0x1f4, {1, 0}, none), "syscall_0x1f4(0x1, 0, 0, 0, 0, 0)");
}

TEST(SyscallText, StringsAreReadAndMadePrintable) {
  const Memory memory = Memory()
                            .at(0x1000, std::string("/dev/tty\0junk", 13))
                            .at(0x2000, "a\"\\\n\t\x1b")
                            .at(0x3000, std::string(100, 'x'));
  const auto folder = static_cast<std::uint64_t>(-100);
  EXPECT_EQ(syscall_text(257, {folder, 0x1000, 0x8002, 0}, memory),
            "openat(AT_FDCWD, \"/dev/tty\", 0x8002, 0)");
  EXPECT_EQ(syscall_text(1, {1, 0x2000, 6}, memory), R"(write(1, "a\"\\\n\t\x1b", 6))");
  // No more than is worth a line, and no more than there is.
  EXPECT_EQ(syscall_text(1, {1, 0x3000, 100}, memory),
            "write(1, \"" + std::string(64, 'x') + "\"..., 100)");
  EXPECT_EQ(syscall_text(1, {1, 0x3000, ~0ULL}, memory),
            "write(1, \"" + std::string(64, 'x') + "\"..., 18446744073709551615)");
  EXPECT_EQ(syscall_text(1, {1, 0x9000, 4}, memory), "write(1, 0x9000, 4)");
  EXPECT_EQ(syscall_text(80, {0x9000}, memory), "chdir(0x9000)");
}

TEST(SyscallText, ListsEndWhereTheyEnd) {
  Memory memory = Memory()
                      .at(0x1000, std::string("init\0", 5))
                      .at(0x2000, pointers({0x1000, 0x1000, 0}))
                      .at(0x3000, pointers(std::vector<std::uint64_t>(100, 0x1000)))
                      .at(0x4000, pointers({0x1000}));
  EXPECT_EQ(syscall_text(59, {0x1000, 0x2000, 0}, memory),
            R"(execve("init", ["init", "init"], NULL))");
  EXPECT_THAT(syscall_text(59, {0x1000, 0x3000, 0}, memory), HasSubstr(R"("init", ...], NULL))"));
  EXPECT_THAT(syscall_text(59, {0x1000, 0x4000, 0x9000}, memory),
              HasSubstr(R"(["init"], 0x9000))"));
  // Near the end of the address space nothing wraps into a read.
  EXPECT_EQ(syscall_text(59, {~0ULL, ~7ULL, 0}, memory),
            "execve(0xffffffffffffffff, 0xfffffffffffffff8, NULL)");
}

TEST(SyscallText, ResultsAreNumbersAddressesOrErrors) {
  EXPECT_EQ(syscall_return_text(1, 6), "write = 6");
  EXPECT_EQ(syscall_return_text(2, static_cast<std::uint64_t>(-2)), "open = -2 ENOENT");
  EXPECT_EQ(syscall_return_text(9, 0x7f0000000000), "mmap = 0x7f0000000000");
  EXPECT_EQ(syscall_return_text(9, static_cast<std::uint64_t>(-12)), "mmap = -12 ENOMEM");
  EXPECT_EQ(syscall_return_text(8, static_cast<std::uint64_t>(-4096)), "lseek = -4096");
  EXPECT_EQ(syscall_return_text(0, static_cast<std::uint64_t>(-512)), "read = -512 ?");
}

}  // namespace
}  // namespace vmm
