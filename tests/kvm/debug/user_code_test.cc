// Breakpoints and steps in code at CPL 3: what the debugger does on a host that can stop it, played
// by a fake KVM, and what it says on one that cannot.
#include <poll.h>

#include <optional>
#include <thread>
#include <vector>

#include "tests/kvm/library/library_guest.h"
#include "tests/support/fakes/stepping_kvm.h"
#include "vmm/debug/debugger.h"

namespace vmm {
namespace {

using debug::BreakpointKind;
using debug::ResumeAction;
using debug::StopKind;

constexpr std::uint64_t kCode = 0x1000;
constexpr std::byte kNop{0x90};

// NOPs, and a jump to itself behind them.
std::vector<std::byte> code() {
  std::vector<std::byte> all(16, kNop);
  all.push_back(std::byte{0xeb});
  all.push_back(std::byte{0xfe});
  return all;
}

// Stands in user code before its first instruction, with a debugger. Without `stops` KVM is the
// host's.
class UserCode : public testing::Test {
 protected:
  void start(std::optional<bool> stops) {
    VmConfig config = flat(code());
    std::get<FlatBoot>(config.boot).mode = FlatMode::kLong;
    for (const char* const quirk : {"syscall-fixup", "interpret-kernel"}) {
      config.quirks.push_back({.name = quirk, .value = Toggle::kOff});
    }
    vm_ = create(std::move(config));
    if (!vm_) return;
    x86::SystemRegisters system = good(vm_->system_registers(kFirst));
    system.cs.dpl = system.ss.dpl = 3;
    system.cs.selector |= 3;
    system.ss.selector |= 3;
    good_or_fail(vm_->set_system_registers(kFirst, system));
    debugger_ = good(debug::Debugger::create({.wait = true, .user_code_stops = stops}));
    vm_->attach_debugger(debugger_);
    if (stops) kvm_.emplace(vm_->memory().regions().front().hva());
    runner_ = std::thread([this] { (void)vm_->run({.deadline = kEnough}); });
    good(debugger_->interrupt());
  }
  void TearDown() override {
    if (debugger_) debugger_->detach();
    if (vm_) vm_->cancel();
    if (runner_.joinable()) runner_.join();
  }

  static void good_or_fail(const Result<void>& result) {
    ASSERT_TRUE(result) << result.error().message();
  }
  void insert(BreakpointKind kind, std::uint64_t address) {
    good_or_fail(debugger_->insert(0, {.kind = kind, .address = address}));
  }
  // As gdb does before it steps off one.
  void remove(BreakpointKind kind, std::uint64_t address) {
    good_or_fail(debugger_->remove({.kind = kind, .address = address}));
  }
  // What the CPU has stopped for, having done that.
  StopKind after(ResumeAction action) {
    good_or_fail(debugger_->resume(std::vector{action}));
    for (;;) {
      pollfd stopped{debugger_->stop_fd(), POLLIN, 0};
      if (::poll(&stopped, 1, std::chrono::milliseconds(kEnough).count()) != 1) {
        ADD_FAILURE() << "the CPU does not stop";
        return StopKind::kCrashed;
      }
      debugger_->forget_signal();
      if (const auto event = debugger_->take_stop()) return event->kind;
    }
  }
  std::uint64_t pc() { return good(debugger_->state(0)).linear_pc(); }
  std::byte memory_at(std::uint64_t address) {
    return vm_->memory().read<std::byte>(Gpa(address)).value();
  }

  std::unique_ptr<Vm> vm_;
  std::shared_ptr<debug::Debugger> debugger_;
  std::optional<test::SteppingKvm> kvm_;
  std::thread runner_;
};

constexpr ResumeAction kContinue{ResumeAction::Kind::kContinue};
constexpr ResumeAction kStep{ResumeAction::Kind::kStep};

#define START_OR_RETURN(stops) \
  start(stops);                \
  if (!vm_ || !debugger_) return

TEST_F(UserCode, PlantedBreakpoint_isMetAndSteppedOff) {
  START_OR_RETURN(true);
  insert(BreakpointKind::kSoftware, kCode + 4);
  EXPECT_EQ(after(kContinue), StopKind::kSoftwareBreakpoint);
  EXPECT_EQ(pc(), kCode + 4);
  EXPECT_EQ(memory_at(kCode + 4), std::byte{0xcc});
  EXPECT_EQ(good(debugger_->state(0)).system.cpl(), 3U);
  remove(BreakpointKind::kSoftware, kCode + 4);
  EXPECT_EQ(memory_at(kCode + 4), kNop);
  EXPECT_EQ(after(kStep), StopKind::kStep);
  EXPECT_EQ(pc(), kCode + 5);
}

TEST_F(UserCode, BreakpointInARegister_isMet) {
  START_OR_RETURN(true);
  insert(BreakpointKind::kHardware, kCode + 6);
  EXPECT_EQ(after(kContinue), StopKind::kHardwareBreakpoint);
  EXPECT_EQ(pc(), kCode + 6);
  remove(BreakpointKind::kHardware, kCode + 6);
  EXPECT_EQ(after(kStep), StopKind::kStep);
  EXPECT_EQ(pc(), kCode + 7);
}

TEST_F(UserCode, Steps_areOneInstructionEach) {
  START_OR_RETURN(true);
  EXPECT_EQ(after(kStep), StopKind::kStep);
  EXPECT_EQ(pc(), kCode + 1);
  EXPECT_EQ(after({ResumeAction::Kind::kStepRange, kCode, kCode + 9}), StopKind::kStep);
  EXPECT_EQ(pc(), kCode + 9);
}

TEST_F(UserCode, HostThatCannotStopIt_isNamed) {
  START_OR_RETURN(false);
  for (const BreakpointKind kind : {BreakpointKind::kSoftware, BreakpointKind::kHardware}) {
    const auto inserted = debugger_->insert(0, {.kind = kind, .address = kCode + 4});
    ASSERT_FALSE(inserted);
    EXPECT_NE(inserted.error().message().find(debug::kNoUserCode), std::string::npos)
        << inserted.error().message();
  }
  EXPECT_EQ(memory_at(kCode + 4), kNop);
  const auto stepped = debugger_->resume(std::vector{kStep});
  ASSERT_FALSE(stepped);
  EXPECT_NE(stepped.error().message().find(debug::kNoUserCode), std::string::npos)
      << stepped.error().message();
  EXPECT_EQ(pc(), kCode);
}

// Nothing is missed without a word, whatever this host is.
TEST_F(UserCode, HostItself_isAsked) {
  START_OR_RETURN(std::nullopt);
  const auto inserted =
      debugger_->insert(0, {.kind = BreakpointKind::kSoftware, .address = kCode + 4});
  EXPECT_EQ(memory_at(kCode + 4), inserted ? std::byte{0xcc} : kNop);
  if (inserted) return;
  EXPECT_NE(inserted.error().message().find(debug::kNoUserCode), std::string::npos)
      << inserted.error().message();
}

}  // namespace
}  // namespace vmm
