#include "vmm/vcpu.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <future>
#include <latch>
#include <numeric>
#include <thread>
#include <utility>

#include "base/le.h"
#include "tests/kvm/vcpu/small_vm.h"

namespace vmm {
namespace {

using ::testing::ElementsAreArray;

// Counts for ever, and tells each number.
constexpr std::array<std::uint8_t, 7> kCount{
    0x33, 0xc0,  //       xor ax, ax
    0x40,        // next: inc ax
    0xe7, 0x80,  //       out 0x80, ax
    0xeb, 0xfb,  //       jmp next
};

// Counts for ever in silence: no exit of its own.
constexpr std::array<std::uint8_t, 3> kSpin{
    0x40,        // next: inc ax
    0xeb, 0xfd,  //       jmp next
};

constexpr std::array<std::uint8_t, 1> kHalt{
    0xf4,  // hlt
};

constexpr std::array<std::uint8_t, 2> kReadPort{
    0xe4, 0x10,  // in al, 0x10
};

constexpr std::size_t kStringLength = 64;
constexpr std::uint64_t kStringInstruction = 0x100a;  // where "rep" stands in the next two

// Writes the 64 bytes at kData to port 0x10 with one instruction.
constexpr std::array<std::uint8_t, 13> kWriteString{
    0xbe, 0x00, 0x20,  // mov si, 0x2000
    0xb9, 0x40, 0x00,  // mov cx, 64
    0xba, 0x10, 0x00,  // mov dx, 0x10
    0xfc,              // cld
    0xf3, 0x6e,        // rep outsb
    0xf4,              // hlt
};

// Reads 64 bytes from port 0x10 to kData with one instruction.
constexpr std::array<std::uint8_t, 13> kReadString{
    0xbf, 0x00, 0x20,  // mov di, 0x2000
    0xb9, 0x40, 0x00,  // mov cx, 64
    0xba, 0x10, 0x00,  // mov dx, 0x10
    0xfc,              // cld
    0xf3, 0x6c,        // rep insb
    0xf4,              // hlt
};

// Reads two bytes from 0xd0034, where there is no RAM.
constexpr std::array<std::uint8_t, 9> kReadMmio{
    0xb8, 0x00, 0xd0,  // mov ax, 0xd000
    0x8e, 0xd8,        // mov ds, ax
    0xa1, 0x34, 0x00,  // mov ax, [0x34]
    0xf4,              // hlt
};

using VcpuTest = KvmTest;

// Holds the vCPU inside its handler, at a moment of the test's choice, while another thread acts.
class Gate {
 public:
  void wait_here() {  // on the vCPU's thread
    arrived_.count_down();
    opened_.wait();
  }
  void wait_for_arrival() { arrived_.wait(); }
  void open() { opened_.count_down(); }

 private:
  std::latch arrived_{1};
  std::latch opened_{1};
};

// The end of a program: tells of its HLT, and parks there.
AfterExit park_at_halt(const VcpuExit& exit, std::latch& halted) {
  if (!std::holds_alternative<HltExit>(exit)) return AfterExit::kRunOn;
  halted.count_down();
  return AfterExit::kPark;
}

// Checks that the numbers of kCount arrive in order, none lost and none twice.
class NumberCheck {
 public:
  AfterExit operator()(VcpuExit& exit) {
    if (const auto* pio = std::get_if<PioExit>(&exit)) {
      const auto number = static_cast<std::uint16_t>(load_le(pio->data));
      const auto expected = static_cast<std::uint16_t>(last_ + 1);
      if (number != expected) wrong_.fetch_add(1);
      last_ = number;
      seen_.fetch_add(1);
    }
    return AfterExit::kRunOn;
  }
  std::uint64_t seen() const { return seen_.load(); }
  std::uint64_t wrong() const { return wrong_.load(); }
  void wait_for(std::uint64_t count) const {
    while (seen() < count) std::this_thread::yield();
  }

 private:
  std::uint16_t last_ = 0;  // the vCPU's thread only
  std::atomic<std::uint64_t> seen_{0};
  std::atomic<std::uint64_t> wrong_{0};
};

TEST_F(VcpuTest, StartsPaused) {
  NumberCheck check;
  auto vm = SmallVm::create(system(), kCount, [&](auto&, VcpuExit& exit) { return check(exit); });
  ASSERT_TRUE(vm);
  EXPECT_EQ(vm->registers().rip, kCode.value);
  EXPECT_EQ(vm->cpu().exits(), 0U);
  EXPECT_EQ(check.seen(), 0U);
}

TEST_F(VcpuTest, CallReachesASpinningGuestBetweenTwoInstructions) {
  auto vm = SmallVm::create(system(), kSpin, nullptr);
  ASSERT_TRUE(vm);
  ASSERT_TRUE(vm->cpu().resume());
  while (vm->handler().entries() == 0) std::this_thread::yield();
  const std::uint64_t first = vm->registers().rip;
  EXPECT_THAT(first, ::testing::AnyOf(kCode.value, kCode.value + 1));
  const auto kicks = vm->cpu().kicks();
  vm->registers();
  EXPECT_EQ(vm->cpu().kicks(), kicks + 1);
}

// Each nudge of a guest that makes no exits of its own brings one more entry, once it has arrived.
TEST_F(VcpuTest, NudgeLeadsToAnotherEntry) {
  auto vm = SmallVm::create(system(), kSpin, nullptr);
  ASSERT_TRUE(vm);
  ASSERT_TRUE(vm->cpu().resume());
  vm->registers();  // answered between two entries
  for (int i = 0; i < 50; ++i) {
    const std::uint64_t before = vm->handler().entries();
    vm->cpu().nudge();
    while (vm->handler().entries() == before) std::this_thread::yield();
  }
}

// A CPU that its handler does not let into KVM_RUN: halted, or not started.
TEST_F(VcpuTest, WaitingCpu_answersCallsAndPauses) {
  auto vm = SmallVm::create(system(), kSpin, nullptr);
  ASSERT_TRUE(vm);
  vm->handler().set_next_step([] { return NextStep{.enter = false, .deadline = {}}; });
  ASSERT_TRUE(vm->cpu().resume());
  EXPECT_EQ(vm->registers().rip, kCode.value);
  vm->pause();
  ASSERT_TRUE(vm->cpu().resume());
  vm->call([](kvm::VcpuFd&) {});
  EXPECT_EQ(vm->cpu().exits(), 0U);
}

TEST_F(VcpuTest, Nudge_endsAWait) {
  std::atomic<bool> halted{true};
  std::latch ran(1);
  auto vm = SmallVm::create(system(), kHalt,
                            [&](auto&, VcpuExit& exit) { return park_at_halt(exit, ran); });
  ASSERT_TRUE(vm);
  vm->handler().set_next_step([&] { return NextStep{.enter = !halted, .deadline = {}}; });
  ASSERT_TRUE(vm->cpu().resume());
  while (vm->handler().entries() == 0) std::this_thread::yield();
  halted = false;
  vm->cpu().nudge();
  ran.wait();
}

TEST_F(VcpuTest, Deadline_endsAWait) {
  std::latch ran(1);
  auto vm = SmallVm::create(system(), kHalt,
                            [&](auto&, VcpuExit& exit) { return park_at_halt(exit, ran); });
  ASSERT_TRUE(vm);
  const auto due = std::chrono::steady_clock::now() + std::chrono::milliseconds(5);
  vm->handler().set_next_step([due] {
    return NextStep{.enter = std::chrono::steady_clock::now() >= due, .deadline = due};
  });
  ASSERT_TRUE(vm->cpu().resume());
  ran.wait();
  EXPECT_GE(std::chrono::steady_clock::now(), due);
}

TEST_F(VcpuTest, Deadline_leavesASpinningGuest) {
  auto vm = SmallVm::create(system(), kSpin, nullptr);
  ASSERT_TRUE(vm);
  vm->handler().set_next_step([] {
    return NextStep{.deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(1)};
  });
  ASSERT_TRUE(vm->cpu().resume());
  while (vm->handler().entries() < 10) std::this_thread::yield();
  vm->pause();
}

TEST_F(VcpuTest, CallToAPausedCpu_isMadeByTheCaller) {
  auto vm = SmallVm::create(system(), kSpin, nullptr);
  ASSERT_TRUE(vm);
  std::thread::id where;
  vm->call([&where](kvm::VcpuFd&) { where = std::this_thread::get_id(); });
  EXPECT_EQ(where, std::this_thread::get_id());
  ASSERT_TRUE(vm->cpu().resume());
  while (vm->handler().entries() == 0) std::this_thread::yield();
  vm->call([&where](kvm::VcpuFd&) { where = std::this_thread::get_id(); });
  EXPECT_NE(where, std::this_thread::get_id());
}

// As a chip does that is put back to a state with an interrupt in it.
TEST_F(VcpuTest, ClosureMayNudgeItsOwnCpu) {
  auto vm = SmallVm::create(system(), kSpin, nullptr);
  ASSERT_TRUE(vm);
  bool ran = false;
  const auto nudge = [&](kvm::VcpuFd&) {
    vm->cpu().nudge();
    ran = true;
  };
  vm->call(nudge);
  EXPECT_TRUE(std::exchange(ran, false));
  ASSERT_TRUE(vm->cpu().resume());
  while (vm->handler().entries() == 0) std::this_thread::yield();
  vm->call(nudge);
  EXPECT_TRUE(ran);
}

TEST_F(VcpuTest, CallDoesNotStopTheGuest) {
  NumberCheck check;
  auto vm = SmallVm::create(system(), kCount, [&](auto&, VcpuExit& exit) { return check(exit); });
  ASSERT_TRUE(vm);
  ASSERT_TRUE(vm->cpu().resume());
  vm->registers();
  check.wait_for(check.seen() + 10);
}

TEST_F(VcpuTest, PausedGuestStandsStill) {
  auto vm = SmallVm::create(system(), kSpin, nullptr);
  ASSERT_TRUE(vm);
  ASSERT_TRUE(vm->cpu().resume());
  vm->registers();
  vm->pause();
  const x86::Registers before = vm->registers();
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_EQ(vm->registers(), before);
}

TEST_F(VcpuTest, CallReachesAHaltedGuest) {
  auto vm = SmallVm::create(system(), kHalt, nullptr, {.irqchip = true});
  ASSERT_TRUE(vm);
  ASSERT_TRUE(vm->cpu().resume());
  auto state = kvm::MpState::kRunnable;
  // Whether HLT has been reached yet is the guest's affair: asked until it has.
  while (state != kvm::MpState::kHalted) {
    vm->call([&state](kvm::VcpuFd& fd) { state = fd.mp_state().value(); });
  }
  EXPECT_EQ(vm->registers().rip, kCode.value + 1);
  vm->pause();
  EXPECT_EQ(vm->cpu().exits(), vm->cpu().kicks());  // the halt itself is no exit
}

TEST_F(VcpuTest, HaltWithoutAChipIsAnExitThatCanPark) {
  std::atomic<int> halts{0};
  auto vm = SmallVm::create(system(), kHalt, [&](auto&, VcpuExit& exit) {
    if (!std::holds_alternative<HltExit>(exit)) return AfterExit::kRunOn;
    ++halts;
    return AfterExit::kPark;
  });
  ASSERT_TRUE(vm);
  ASSERT_TRUE(vm->cpu().resume());
  while (halts == 0) std::this_thread::yield();
  ASSERT_TRUE(vm->cpu().wait_paused(kPatience));
  EXPECT_EQ(vm->registers().rip, kCode.value + 1);
  EXPECT_EQ(halts, 1);
}

TEST_F(VcpuTest, ParkingFinishesAPendingPortRead) {
  std::atomic<int> reads{0};
  auto vm = SmallVm::create(system(), kReadPort, [&](auto&, VcpuExit& exit) {
    auto* pio = std::get_if<PioExit>(&exit);
    if (pio == nullptr) return AfterExit::kRunOn;
    ++reads;
    pio->data[0] = std::byte{0x5a};
    return AfterExit::kPark;
  });
  ASSERT_TRUE(vm);
  ASSERT_TRUE(vm->cpu().resume());
  while (reads == 0) std::this_thread::yield();
  ASSERT_TRUE(vm->cpu().wait_paused(kPatience));
  const x86::Registers registers = vm->registers();
  EXPECT_EQ(registers.rip, kCode.value + kReadPort.size());
  EXPECT_EQ(registers.gpr[x86::kRax] & 0xff, 0x5aU);
  EXPECT_EQ(reads, 1);
}

// Of a CPU that has parked after an access the registers are there without asking; they are what
// KVM says, also after somebody has set some.
TEST_F(VcpuTest, RegistersOfAParkedCpu_areThoseOfKvm) {
  if (!system().capabilities().sync_registers) GTEST_SKIP() << "KVM shares no registers";
  std::atomic<int> reads{0};
  auto vm = SmallVm::create(system(), kReadPort, [&](auto&, VcpuExit& exit) {
    auto* pio = std::get_if<PioExit>(&exit);
    if (pio == nullptr) return AfterExit::kRunOn;
    pio->data[0] = std::byte{0x5a};
    ++reads;
    return AfterExit::kPark;
  });
  ASSERT_TRUE(vm);
  vm->call([](kvm::VcpuFd& fd) { fd.share_registers(); });
  ASSERT_TRUE(vm->cpu().resume());
  while (reads == 0) std::this_thread::yield();
  ASSERT_TRUE(vm->cpu().wait_paused(kPatience));
  vm->call([](kvm::VcpuFd& fd) {
    const auto compare = [&fd] {
      const x86::Registers registers = fd.registers().value();
      const x86::SystemRegisters system = fd.system_registers().value();
      fd.forget_picture();
      EXPECT_EQ(registers, fd.registers().value());
      EXPECT_EQ(system, fd.system_registers().value());
    };
    compare();
    x86::SystemRegisters other = fd.system_registers().value();
    EXPECT_EQ(fd.registers().value().rip, kCode.value + kReadPort.size());
    other.gdt.limit = 0x1234;
    ASSERT_TRUE(fd.set_system_registers(other));
    EXPECT_EQ(fd.system_registers().value().gdt.limit, 0x1234);
    x86::Registers moved = fd.registers().value();
    moved.gpr[x86::kRbx] = 7;
    ASSERT_TRUE(fd.set_registers(moved));
    EXPECT_EQ(fd.registers().value().gpr[x86::kRbx], 7U);
    compare();
  });
}

// The picture is of the moment: none of it is left when the CPU has run on.
TEST_F(VcpuTest, RegistersOfACpuThatRanOn_areNew) {
  if (!system().capabilities().sync_registers) GTEST_SKIP() << "KVM shares no registers";
  std::atomic<int> writes{0};
  auto vm = SmallVm::create(system(), kCount, [&](auto&, VcpuExit& exit) {
    if (!std::holds_alternative<PioExit>(exit)) return AfterExit::kRunOn;
    ++writes;
    return AfterExit::kPark;
  });
  ASSERT_TRUE(vm);
  vm->call([](kvm::VcpuFd& fd) { fd.share_registers(); });
  for (int round = 1; round <= 3; ++round) {
    ASSERT_TRUE(vm->cpu().resume());
    while (writes < round) std::this_thread::yield();
    ASSERT_TRUE(vm->cpu().wait_paused(kPatience));
    EXPECT_EQ(vm->registers().gpr[x86::kRax] & 0xffff, static_cast<std::uint64_t>(round));
  }
}

// Where all registers are shared the same holds on the CPU's own thread, at each exit.
TEST_F(VcpuTest, SharedRegistersAtAnExit_areThoseOfKvm) {
  if (!system().capabilities().sync_registers) GTEST_SKIP() << "KVM shares no registers";
  std::atomic<int> writes{0};
  auto vm = SmallVm::create(system(), kCount, [&](kvm::VcpuFd& fd, VcpuExit& exit) {
    if (!std::holds_alternative<PioExit>(exit)) return AfterExit::kRunOn;
    const x86::Registers registers = fd.registers().value();
    const x86::SystemRegisters system = fd.system_registers().value();
    fd.forget_picture();
    EXPECT_EQ(registers, fd.registers().value());
    EXPECT_EQ(system, fd.system_registers().value());
    return ++writes == 3 ? AfterExit::kPark : AfterExit::kRunOn;
  });
  ASSERT_TRUE(vm);
  vm->call([](kvm::VcpuFd& fd) { fd.share_system_registers(true); });
  ASSERT_TRUE(vm->cpu().resume());
  while (writes < 3) std::this_thread::yield();
  ASSERT_TRUE(vm->cpu().wait_paused(kPatience));
  EXPECT_EQ(vm->registers().gpr[x86::kRax] & 0xffff, 3U);
}

// Who nudges may hold what a closure of call() waits for: a device's lock, on another thread.
class VcpuTestNudge : public VcpuTest, public ::testing::WithParamInterface<bool> {};

TEST_P(VcpuTestNudge, DoesNotWaitForAClosure) {
  const bool running = GetParam();
  auto vm = SmallVm::create(system(), kSpin, {});
  ASSERT_TRUE(vm);
  if (running) {
    ASSERT_TRUE(vm->cpu().resume());
  }
  std::promise<void> in_closure, nudged;
  std::thread raiser([&] {
    in_closure.get_future().wait();
    vm->cpu().nudge();
    nudged.set_value();
  });
  vm->call([&](kvm::VcpuFd&) {
    in_closure.set_value();
    EXPECT_EQ(nudged.get_future().wait_for(kPatience / 2), std::future_status::ready);
  });
  raiser.join();
  if (running) vm->pause();
}

INSTANTIATE_TEST_SUITE_P(Cpu, VcpuTestNudge, ::testing::Bool(),
                         [](const auto& tested) { return tested.param ? "Running" : "Paused"; });

TEST_F(VcpuTest, PauseFinishesAPendingMmioRead) {
  Gate gate;
  std::atomic<int> reads{0};
  auto vm = SmallVm::create(system(), kReadMmio, [&](auto&, VcpuExit& exit) {
    auto* mmio = std::get_if<MmioExit>(&exit);
    if (mmio == nullptr) return AfterExit::kRunOn;
    EXPECT_EQ(mmio->address, Gpa(0xd0034));
    EXPECT_EQ(mmio->data.size(), 2U);
    EXPECT_FALSE(mmio->is_write);
    store_le(mmio->data, 0xbeef);
    if (++reads == 1) gate.wait_here();
    return AfterExit::kRunOn;
  });
  ASSERT_TRUE(vm);
  ASSERT_TRUE(vm->cpu().resume());
  gate.wait_for_arrival();
  vm->cpu().request_pause();
  gate.open();
  ASSERT_TRUE(vm->cpu().wait_paused(kPatience));
  const x86::Registers registers = vm->registers();
  EXPECT_EQ(registers.rip, kCode.value + 8);  // at the HLT
  EXPECT_EQ(registers.gpr[x86::kRax] & 0xffff, 0xbeefU);
  EXPECT_EQ(reads, 1);
}

// A pause in the middle of a string instruction, after as many items as the parameter says. What is
// paused is a whole state: a second machine that gets a copy of it goes on with the next item.
class VcpuInAString : public VcpuTest, public ::testing::WithParamInterface<std::size_t> {};

TEST_P(VcpuInAString, PausedWriteGoesOnInACopy) {
  const std::size_t stop_after = GetParam();
  std::array<std::byte, kStringLength> text{};
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<std::byte>(i + 1);
  Gate gate;
  std::vector<std::byte> sent;
  const auto collect = [&sent](VcpuExit& exit) {
    const auto* pio = std::get_if<PioExit>(&exit);
    if (pio != nullptr) sent.insert(sent.end(), pio->data.begin(), pio->data.end());
    return pio != nullptr;
  };

  bool held = false;  // the vCPU's thread only
  auto original = SmallVm::create(system(), kWriteString, [&](auto&, VcpuExit& exit) {
    if (!collect(exit)) return AfterExit::kRunOn;
    if (sent.size() >= stop_after && !std::exchange(held, true)) gate.wait_here();
    return AfterExit::kRunOn;
  });
  ASSERT_TRUE(original);
  ASSERT_TRUE(original->memory().write(kData, text));
  original->cpu().resume();
  gate.wait_for_arrival();
  original->cpu().request_pause();
  gate.open();
  ASSERT_TRUE(original->cpu().wait_paused(kPatience));

  const std::size_t before = sent.size();
  const x86::Registers registers = original->registers();
  EXPECT_GE(before, stop_after);
  EXPECT_EQ(registers.gpr[x86::kRcx], kStringLength - before);
  EXPECT_EQ(registers.gpr[x86::kRsi], kData.value + before);
  EXPECT_EQ(registers.rip, kStringInstruction + (before == kStringLength ? 2 : 0));

  std::latch halted(1);
  auto copy = SmallVm::create(system(), kHalt, [&](auto&, VcpuExit& exit) {
    collect(exit);
    return park_at_halt(exit, halted);
  });
  ASSERT_TRUE(copy);
  copy->copy_from(*original);
  copy->cpu().resume();
  halted.wait();
  EXPECT_THAT(sent, ElementsAreArray(text));
}

TEST_P(VcpuInAString, PausedReadGoesOnInACopy) {
  const std::size_t stop_after = GetParam();
  Gate gate;
  std::size_t given = 0;
  const auto give = [&given](VcpuExit& exit) {
    auto* pio = std::get_if<PioExit>(&exit);
    if (pio == nullptr) return false;
    for (std::byte& byte : pio->data) byte = static_cast<std::byte>(++given);
    return true;
  };
  bool held = false;
  auto original = SmallVm::create(system(), kReadString, [&](auto&, VcpuExit& exit) {
    if (!give(exit)) return AfterExit::kRunOn;
    if (given >= stop_after && !std::exchange(held, true)) gate.wait_here();
    return AfterExit::kRunOn;
  });
  ASSERT_TRUE(original);
  original->cpu().resume();
  gate.wait_for_arrival();
  original->cpu().request_pause();
  gate.open();
  ASSERT_TRUE(original->cpu().wait_paused(kPatience));

  // What has been given is in RAM, and the registers say so.
  const x86::Registers registers = original->registers();
  EXPECT_EQ(registers.gpr[x86::kRcx], kStringLength - given);
  EXPECT_EQ(registers.gpr[x86::kRdi], kData.value + given);

  std::latch halted(1);
  auto copy = SmallVm::create(system(), kHalt, [&](auto&, VcpuExit& exit) {
    give(exit);
    return park_at_halt(exit, halted);
  });
  ASSERT_TRUE(copy);
  copy->copy_from(*original);
  copy->cpu().resume();
  halted.wait();
  std::array<std::byte, kStringLength> read{};
  ASSERT_TRUE(copy->memory().read(kData, read));
  std::array<std::byte, kStringLength> expected{};
  for (std::size_t i = 0; i < expected.size(); ++i) expected[i] = static_cast<std::byte>(i + 1);
  EXPECT_EQ(read, expected);
}

INSTANTIATE_TEST_SUITE_P(AfterItems, VcpuInAString, ::testing::Values(1, 2, 31, 63));

TEST_F(VcpuTest, PausesAndResumesLoseNoExit) {
  NumberCheck check;
  auto vm = SmallVm::create(system(), kCount, [&](auto&, VcpuExit& exit) { return check(exit); });
  ASSERT_TRUE(vm);
  for (int round = 0; round < 300; ++round) {
    ASSERT_TRUE(vm->cpu().resume());
    // Every third round lets the guest get somewhere; the others are as tight as they can be.
    if (round % 3 == 0) check.wait_for(check.seen() + 1);
    vm->pause();
  }
  EXPECT_EQ(check.wrong(), 0U);
  EXPECT_GE(check.seen(), 100U);
  EXPECT_EQ(vm->handler().host_errors(), 0U);
}

// Several threads at once ask for registers, pause and resume: every call is answered once, and the
// guest does not notice.
TEST_F(VcpuTest, KickStormFromManyThreadsLosesNothing) {
  constexpr int kThreads = 4;
  constexpr int kCalls = 150;
  NumberCheck check;
  auto vm = SmallVm::create(system(), kCount, [&](auto&, VcpuExit& exit) { return check(exit); });
  ASSERT_TRUE(vm);
  ASSERT_TRUE(vm->cpu().resume());
  std::atomic<int> answered{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < kCalls; ++n) vm->call([&answered](kvm::VcpuFd&) { ++answered; });
    });
  }
  for (int round = 0; round < kCalls; ++round) {
    vm->pause();
    ASSERT_TRUE(vm->cpu().resume());
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(answered, kThreads * kCalls);
  check.wait_for(check.seen() + 10);
  vm->pause();
  EXPECT_EQ(check.wrong(), 0U);
}

// A CPU that a debugger steps looks for its next order before it sleeps, for some 150 microseconds:
// calls that come just when it stops looking are answered, too.
TEST_F(VcpuTest, CallReachesACpuThatGoesToSleep) {
  auto vm = SmallVm::create(system(), kSpin, nullptr);
  ASSERT_TRUE(vm);
  vm->call([&vm](kvm::VcpuFd& fd) {
    EXPECT_TRUE(vm->cpu().debug().set_wish(fd, {.attached = true, .step = true}));
  });
  int answered = 0;
  constexpr int kCalls = 4000;
  for (int round = 0; round < kCalls; ++round) {
    const auto then =
        std::chrono::steady_clock::now() + std::chrono::microseconds(135 + round % 30);
    while (std::chrono::steady_clock::now() < then) {
    }
    vm->call([&answered](kvm::VcpuFd&) { ++answered; });
    if (HasFatalFailure()) return;
  }
  EXPECT_EQ(answered, kCalls);
}

TEST_F(VcpuTest, CallThatIsGivenUpNeverRuns) {
  Gate gate;
  std::atomic<bool> first{true};
  auto vm = SmallVm::create(system(), kCount, [&](auto&, VcpuExit&) {
    if (first.exchange(false)) gate.wait_here();
    return AfterExit::kRunOn;
  });
  ASSERT_TRUE(vm);
  ASSERT_TRUE(vm->cpu().resume());
  gate.wait_for_arrival();
  std::atomic<bool> ran{false};
  const auto called =
      vm->cpu().call([&ran](kvm::VcpuFd&) { ran = true; }, std::chrono::milliseconds(1));
  ASSERT_FALSE(called);
  EXPECT_EQ(called.error().code(), ErrorCode::kTimeout);
  const auto paused = vm->cpu().wait_paused(std::chrono::milliseconds(1));
  ASSERT_FALSE(paused);
  EXPECT_EQ(paused.error().code(), ErrorCode::kTimeout);
  gate.open();
  vm->pause();
  vm->registers();  // the mailbox is in order: the abandoned call has had its turn
  EXPECT_FALSE(ran);
}

TEST_F(VcpuTest, TwoMachinesInOneProcessDoNotMix) {
  NumberCheck first_check;
  NumberCheck second_check;
  auto first =
      SmallVm::create(system(), kCount, [&](auto&, VcpuExit& exit) { return first_check(exit); });
  auto second =
      SmallVm::create(system(), kCount, [&](auto&, VcpuExit& exit) { return second_check(exit); });
  ASSERT_TRUE(first);
  ASSERT_TRUE(second);
  first->cpu().resume();
  second->cpu().resume();
  first_check.wait_for(500);
  second_check.wait_for(500);
  first->pause();
  const auto paused_at = first_check.seen();
  second_check.wait_for(second_check.seen() + 100);
  EXPECT_EQ(first_check.seen(), paused_at);
  first.reset();
  second_check.wait_for(second_check.seen() + 100);
  second->pause();
  EXPECT_EQ(first_check.wrong(), 0U);
  EXPECT_EQ(second_check.wrong(), 0U);
}

// A failure of KVM_RUN itself is the host's: the vCPU says so and parks, it does not spin. A memory
// file stands in for the descriptor: it can be mapped, but knows no KVM_RUN.
TEST(Vcpu, HostErrorParks) {
  constexpr std::size_t kRunSize = 4096 * 3;
  UniqueFd file(::memfd_create("no-vcpu", MFD_CLOEXEC));
  ASSERT_TRUE(file);
  ASSERT_EQ(::ftruncate(file.get(), kRunSize), 0);
  auto fd = kvm::VcpuFd::create(std::move(file), 7, kRunSize, 4096);
  ASSERT_TRUE(fd) << fd.error().message();
  const auto signal = install_kick_signal(0);
  ASSERT_TRUE(signal) << signal.error().message();
  FunctionHandler handler(nullptr);
  Vcpu cpu(std::move(*fd), handler, *signal);
  cpu.resume();
  while (handler.host_errors() == 0) std::this_thread::yield();
  EXPECT_TRUE(cpu.wait_paused(kPatience));
  EXPECT_EQ(handler.host_errors(), 1U);
  EXPECT_EQ(cpu.exits(), 1U);
}

TEST_F(VcpuTest, EndsWhileTheGuestSpins) {
  auto vm = SmallVm::create(system(), kSpin, nullptr);
  ASSERT_TRUE(vm);
  ASSERT_TRUE(vm->cpu().resume());
  vm.reset();
}

TEST_F(VcpuTest, EndsWhileTheGuestIsHalted) {
  auto vm = SmallVm::create(system(), kHalt, nullptr, {.irqchip = true});
  ASSERT_TRUE(vm);
  ASSERT_TRUE(vm->cpu().resume());
  vm->registers();
  vm.reset();
}

TEST_F(VcpuTest, EndsWhilePaused) {
  auto vm = SmallVm::create(system(), kSpin, nullptr);
  ASSERT_TRUE(vm);
  vm.reset();
}

}  // namespace
}  // namespace vmm
