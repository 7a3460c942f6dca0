// A vCPU whose guest another thread than its own runs (Vcpu::run_here()).
#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <thread>
#include <variant>

#include "tests/kvm/vcpu/small_vm.h"

namespace vmm {
namespace {

using std::chrono::steady_clock;

// Counts for ever in silence; and halts.
constexpr std::array<std::uint8_t, 3> kSpin{0x40, 0xeb, 0xfd};
constexpr std::array<std::uint8_t, 1> kHalt{0xf4};

steady_clock::time_point much_later() { return steady_clock::now() + kPatience; }

class Turn : public KvmTest {
 protected:
  // Lent to the test's thread, and resumed.
  void start(std::span<const std::uint8_t> code, FunctionHandler::Function on_exit = nullptr) {
    vm_ = SmallVm::create(system(), code, std::move(on_exit));
    ASSERT_TRUE(vm_);
    vm_->cpu().lend();
    ASSERT_TRUE(vm_->cpu().resume());
  }
  // Another thread that does something once the guest runs.
  template <typename Fn>
  std::thread meanwhile(Fn fn) {
    return std::thread([this, fn] {
      while (vm_->handler().entries() == 0) std::this_thread::yield();
      fn();
    });
  }

  std::unique_ptr<SmallVm> vm_;
};

TEST_F(Turn, RunsTheGuestOnTheCaller_untilItParks) {
  std::thread::id where;
  ASSERT_NO_FATAL_FAILURE(start(kHalt, [&](auto&, VcpuExit& exit) {
    if (!std::holds_alternative<HltExit>(exit)) return AfterExit::kRunOn;
    where = std::this_thread::get_id();
    return AfterExit::kPark;
  }));
  EXPECT_FALSE(vm_->cpu().run_here(much_later()));
  EXPECT_EQ(where, std::this_thread::get_id());
  EXPECT_EQ(vm_->registers().rip, kCode.value + kHalt.size());
}

TEST_F(Turn, EndsAtItsTime_andTheNextGoesOn) {
  ASSERT_NO_FATAL_FAILURE(start(kSpin));
  for (int i = 0; i < 3; ++i) {
    const auto end = steady_clock::now() + std::chrono::milliseconds(2);
    EXPECT_TRUE(vm_->cpu().run_here(end));
    EXPECT_GE(steady_clock::now(), end);
  }
}

TEST_F(Turn, OfTheWaiting_endsAtItsTime) {
  ASSERT_NO_FATAL_FAILURE(start(kSpin));
  vm_->handler().set_next_step([] { return NextStep{.enter = false, .deadline = {}}; });
  const auto end = steady_clock::now() + std::chrono::milliseconds(2);
  EXPECT_TRUE(vm_->cpu().run_here(end));
  EXPECT_GE(steady_clock::now(), end);
}

TEST_F(Turn, EndsWhenSomebodyEndsIt) {
  ASSERT_NO_FATAL_FAILURE(start(kSpin));
  std::thread other = meanwhile([this] { vm_->cpu().end_turn(); });
  EXPECT_TRUE(vm_->cpu().run_here(much_later()));
  other.join();
}

TEST_F(Turn, ThatWasEndedBefore_isNone) {
  ASSERT_NO_FATAL_FAILURE(start(kSpin));
  vm_->cpu().end_turn();
  EXPECT_TRUE(vm_->cpu().run_here(much_later()));
  EXPECT_EQ(vm_->handler().entries(), 0U);
}

TEST_F(Turn, MayBeEndedByItsGuestsExit) {
  constexpr std::array<std::uint8_t, 4> kKnock{0xe7, 0x80, 0xeb, 0xfe};  // out 0x80, ax; jmp $
  ASSERT_NO_FATAL_FAILURE(start(kKnock, [this](auto&, VcpuExit& exit) {
    if (std::holds_alternative<PioExit>(exit)) vm_->cpu().end_turn();
    return AfterExit::kRunOn;
  }));
  EXPECT_TRUE(vm_->cpu().run_here(much_later()));
  EXPECT_EQ(vm_->registers().rip, kCode.value + 2);  // the instruction is finished
}

TEST_F(Turn, EndsWithAPause_andTheThreadTakesOver) {
  ASSERT_NO_FATAL_FAILURE(start(kSpin));
  std::thread other = meanwhile([this] { vm_->pause(); });
  EXPECT_FALSE(vm_->cpu().run_here(much_later()));
  other.join();
  ASSERT_TRUE(vm_->cpu().take_back());
  const std::uint64_t entries = vm_->handler().entries();
  ASSERT_TRUE(vm_->cpu().resume());
  while (vm_->handler().entries() == entries) std::this_thread::yield();
  vm_->pause();
}

TEST_F(Turn, TakenBackBetweenTwo_goesOnOnTheThread) {
  ASSERT_NO_FATAL_FAILURE(start(kSpin));
  EXPECT_TRUE(vm_->cpu().run_here(steady_clock::now()));
  const std::uint64_t entries = vm_->handler().entries();
  ASSERT_TRUE(vm_->cpu().take_back());
  while (vm_->handler().entries() == entries) std::this_thread::yield();
  vm_->pause();
}

TEST_F(Turn, AnswersCallsOfOthers) {
  ASSERT_NO_FATAL_FAILURE(start(kSpin));
  const std::thread::id here = std::this_thread::get_id();
  std::thread::id where;
  std::thread other = meanwhile([&] {
    for (int i = 0; i < 100; ++i) {
      vm_->call([&where](kvm::VcpuFd&) { where = std::this_thread::get_id(); });
    }
    vm_->cpu().end_turn();
  });
  EXPECT_TRUE(vm_->cpu().run_here(much_later()));
  other.join();
  EXPECT_EQ(where, here);
}

// Threads of a program may block whatever they like.
TEST_F(Turn, HearsKicks_whereTheirSignalIsBlocked) {
  ASSERT_NO_FATAL_FAILURE(start(kSpin));
  sigset_t all, before, after;
  ::sigfillset(&all);
  ASSERT_EQ(::pthread_sigmask(SIG_SETMASK, &all, &before), 0);
  std::thread other = meanwhile([this] { vm_->cpu().end_turn(); });
  EXPECT_TRUE(vm_->cpu().run_here(much_later()));
  ::pthread_sigmask(SIG_SETMASK, &before, &after);
  other.join();
  const int kick = install_kick_signal(0).value();
  EXPECT_EQ(::sigismember(&after, kick), 1);  // as it was
}

TEST_F(Turn, CountsAsTheCpusTime) {
  ASSERT_NO_FATAL_FAILURE(start(kSpin));
  while (vm_->cpu().cpu_time() < std::chrono::milliseconds(2)) {
    EXPECT_TRUE(vm_->cpu().run_here(steady_clock::now() + std::chrono::milliseconds(1)));
  }
}

}  // namespace
}  // namespace vmm
