// The guest's time while a debugger or the embedder holds it.
#include <x86intrin.h>

#include <array>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "tests/kvm/library/library_guest.h"
#include "vmm/debug/debugger.h"
#include "vmm/x86/msr_numbers.h"

namespace vmm {
namespace {

using std::chrono::nanoseconds;
using std::chrono::steady_clock;

constexpr std::chrono::milliseconds kHeld{300};
constexpr Gpa kTime{0x2000};

// Reads ACPI's timer, at port 0x608, into kTime for ever.
constexpr std::array<std::uint8_t, 11> kReadTimer{
    0xba, 0x08, 0x06,        // mov dx, 0x608
    0x66, 0xed,              // in eax, dx
    0x66, 0xa3, 0x00, 0x20,  // mov [0x2000], eax
    0xeb, 0xf8,              // jmp to the in
};

class StoppedTime : public testing::Test {
 protected:
  void start(VmConfig config, bool time_goes_on) {
    vm_ = create(std::move(config));
    if (!vm_) return;
    debugger_ = good(debug::Debugger::create({.time_goes_on = time_goes_on}));
    vm_->attach_debugger(debugger_);
    runner_ = std::thread([this] {
      (void)vm_->run({.deadline = kEnough, .on_started = [this] { started_ = true; }});
    });
    while (!started_) std::this_thread::yield();
  }
  void TearDown() override {
    if (vm_) vm_->cancel();
    if (runner_.joinable()) runner_.join();
  }

  std::unique_ptr<Vm> vm_;
  std::shared_ptr<debug::Debugger> debugger_;
  std::atomic<bool> started_{false};
  std::thread runner_;
};

class DevicesTime : public StoppedTime {
 protected:
  void start(bool time_goes_on) {
    const auto code = std::as_bytes(std::span(kReadTimer));
    VmConfig config = flat({code.begin(), code.end()});
    std::get<FlatBoot>(config.boot).mode = FlatMode::kReal;
    StoppedTime::start(std::move(config), time_goes_on);
  }
  std::uint32_t ticks() const { return vm_->memory().read<std::uint32_t>(kTime).value(); }
  // Until the guest has read it again: the next one may have been read before, not the second.
  void wait_for_ticks() const {
    for (int i = 0; i < 2; ++i) {
      const std::uint32_t last = ticks();
      while (ticks() == last) std::this_thread::yield();
    }
  }
  // How far the timer got from one hold to behind the next, and the host at most.
  template <typename Stop, typename Go>
  void hold(Stop stop, Go go) {
    const auto begin = steady_clock::now();
    wait_for_ticks();
    stop();
    const std::uint32_t first = ticks();
    std::this_thread::sleep_for(kHeld);
    go();
    wait_for_ticks();
    const std::uint32_t last = ticks();
    host_ = steady_clock::now() - begin;
    constexpr std::uint32_t kMask = 0xff'ffff;
    constexpr double kNanoseconds = 1e9 / 3'579'545;
    guest_ = nanoseconds(static_cast<std::int64_t>(((last - first) & kMask) * kNanoseconds));
  }
  void hold_by_debugger() {
    hold([this] { good(debugger_->interrupt()); },
         [this] {
           ASSERT_TRUE(debugger_->resume(
               std::vector<debug::ResumeAction>{{debug::ResumeAction::Kind::kContinue}}));
         });
  }

  nanoseconds guest_{}, host_{};
};

TEST_F(DevicesTime, UnderADebugger_standsStill) {
  start(false);
  if (!vm_) return;
  hold_by_debugger();
  EXPECT_LE(guest_, host_ - kHeld);
}

TEST_F(DevicesTime, UnderADebugger_goesOnOnRequest) {
  start(true);
  if (!vm_) return;
  hold_by_debugger();
  EXPECT_GE(guest_, kHeld);
}

// Who pauses the guest has no choice.
TEST_F(DevicesTime, OfThePaused_standsStill) {
  start(true);
  if (!vm_) return;
  hold([this] { ASSERT_TRUE(vm_->pause()); }, [this] { ASSERT_TRUE(vm_->resume()); });
  EXPECT_LE(guest_, host_ - kHeld);
}

// Has KVM write kvmclock's page (Documentation/virt/kvm/x86/msr.rst) and idles for ever.
constexpr Gpa kPvclock{0x3000};
constexpr std::array<std::uint8_t, 19> kUseKvmclock{
    0x66, 0xb9, 0x01, 0x4d, 0x56, 0x4b,  // mov ecx, 0x4b564d01
    0x66, 0xb8, 0x01, 0x30, 0x00, 0x00,  // mov eax, 0x3001
    0x66, 0x31, 0xd2,                    // xor edx, edx
    0x0f, 0x30,                          // wrmsr
    0xeb, 0xfe,                          // jmp to itself
};

class KvmClock : public StoppedTime {
 protected:
  void SetUp() override {
    const auto code = std::as_bytes(std::span(kUseKvmclock));
    VmConfig config = flat({code.begin(), code.end()});
    std::get<FlatBoot>(config.boot).mode = FlatMode::kReal;
    begin_ = steady_clock::now();
    start(std::move(config), false);
  }
  std::uint32_t version() const { return vm_->memory().read<std::uint32_t>(kPvclock).value(); }
  // When KVM last wrote the page, after the version that is given.
  nanoseconds told_after(std::uint32_t known) const {
    std::uint32_t now = version();
    for (; now == known || now % 2 != 0; now = version()) std::this_thread::yield();
    return nanoseconds(vm_->memory().read<std::int64_t>(Gpa(kPvclock.value + 16)).value());
  }

  steady_clock::time_point begin_{};
};

TEST_F(KvmClock, OfThePaused_standsStill) {
  if (!vm_) return;
  const nanoseconds first = told_after(0);
  ASSERT_TRUE(vm_->pause());
  const std::uint32_t known = version();
  std::this_thread::sleep_for(kHeld);
  ASSERT_TRUE(vm_->resume());
  const nanoseconds last = told_after(known);
  EXPECT_GE(last, first);
  EXPECT_LE(last - first, steady_clock::now() - begin_ - kHeld);
}

// Not from where it was stopped before it was set back.
TEST_F(KvmClock, OfOneSetBackWhileHeld_goesOnFromThere) {
  if (!vm_) return;
  const nanoseconds first = told_after(0);
  good(debugger_->interrupt());
  good(debugger_->monitor(0, "snapshot here"));
  const std::vector<debug::ResumeAction> all{{debug::ResumeAction::Kind::kContinue}};
  ASSERT_TRUE(debugger_->resume(all));
  std::this_thread::sleep_for(kHeld);
  good(debugger_->interrupt());
  std::this_thread::sleep_for(kHeld);
  good(debugger_->monitor(0, "rewind here"));
  const std::uint32_t known = version();
  std::this_thread::sleep_for(kHeld);
  ASSERT_TRUE(debugger_->resume(all));
  const nanoseconds last = told_after(known);
  EXPECT_GE(last, first);
  EXPECT_LE(last - first, steady_clock::now() - begin_ - 3 * kHeld);
}

// In ticks of the host's TSC, at whose rate the guest's counts.
class TscTime : public StoppedTime, public testing::WithParamInterface<IrqchipMode> {
 protected:
  std::uint64_t tsc(unsigned cpu) { return good(vm_->msr(static_cast<VcpuId>(cpu), x86::kMsrTsc)); }
  // A software KVM may take a TSC and leave it as it is.
  bool can_be_set() {
    const std::uint64_t now = tsc(0), other = now / 2;
    if (!vm_->set_msr(VcpuId{0}, x86::kMsrTsc, other)) return false;
    const bool set = tsc(0) < now;
    return set && vm_->set_msr(VcpuId{0}, x86::kMsrTsc, now);
  }
};

TEST_P(TscTime, OfThePaused_standsStill) {
  VmConfig config = flat({std::byte{0xeb}, std::byte{0xfe}});
  config.cpus.count = 2;
  config.irqchip = GetParam();
  start(std::move(config), false);
  if (!vm_) return;
  ASSERT_TRUE(vm_->pause());
  if (!can_be_set()) GTEST_SKIP() << "this KVM does not set a TSC once its CPU has run";
  ASSERT_TRUE(vm_->resume());
  const std::uint64_t begin = __rdtsc();
  ASSERT_TRUE(vm_->pause());
  const std::uint64_t first = tsc(0), held_from = __rdtsc();
  std::this_thread::sleep_for(kHeld);
  const std::uint64_t held = __rdtsc() - held_from;
  ASSERT_TRUE(vm_->resume());
  ASSERT_TRUE(vm_->pause());
  const std::uint64_t last = tsc(0);
  EXPECT_LE(last, tsc(1));               // which is read later
  const std::uint64_t blur = held / 30;  // clocks of one host may be apart by then
  EXPECT_LT(last - first, __rdtsc() - begin - held + blur);
}

INSTANTIATE_TEST_SUITE_P(Irqchip, TscTime,
                         testing::Values(IrqchipMode::kUser, IrqchipMode::kSplit,
                                         IrqchipMode::kKernel),
                         [](const auto& tested) {
                           return tested.param == IrqchipMode::kUser    ? "user"
                                  : tested.param == IrqchipMode::kSplit ? "split"
                                                                        : "kernel";
                         });

}  // namespace
}  // namespace vmm
