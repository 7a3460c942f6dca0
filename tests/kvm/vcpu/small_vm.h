// A machine of one vCPU and 64 KiB of RAM from address 0, in real mode at 0x1000: as little as a
// vCPU thread needs around it.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/size.h"
#include "memory/guest_memory.h"
#include "vmm/kick.h"
#include "vmm/kvm/system.h"
#include "vmm/kvm/vm_fd.h"
#include "vmm/vcpu.h"

namespace vmm {

inline constexpr Gpa kCode{0x1000};
inline constexpr Gpa kData{0x2000};
// Long enough for the busiest machine; a test that waits this long has failed.
inline constexpr std::chrono::seconds kPatience{60};

// Calls a function for each exit, on the vCPU's thread; without one a machine ignores its guest.
class FunctionHandler final : public ExitHandler {
 public:
  using Function = std::function<AfterExit(kvm::VcpuFd&, VcpuExit&)>;
  explicit FunctionHandler(Function function) : function_(std::move(function)) {}

  AfterExit handle(kvm::VcpuFd& cpu, VcpuExit& exit) override {
    return function_ ? function_(cpu, exit) : AfterExit::kRunOn;
  }
  Result<NextStep> before_entry(kvm::VcpuFd&) override {
    entries_.fetch_add(1, std::memory_order_relaxed);
    return next_step_ ? next_step_() : NextStep{};
  }
  // What before_entry() answers; set before the CPU runs.
  void set_next_step(std::function<NextStep()> next_step) { next_step_ = std::move(next_step); }
  void host_error(Error error) override {
    std::lock_guard<std::mutex> lock(mutex_);
    errors_.push_back(std::move(error));
  }
  // Calls of before_entry().
  std::uint64_t entries() const noexcept { return entries_.load(std::memory_order_relaxed); }
  std::size_t host_errors() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return errors_.size();
  }

 private:
  Function function_;
  std::function<NextStep()> next_step_;
  std::atomic<std::uint64_t> entries_{0};
  mutable std::mutex mutex_;
  std::vector<Error> errors_;
};

struct SmallVmOptions {
  bool irqchip = false;  // in-kernel chips: HLT then waits in the kernel
};

class SmallVm {
 public:
  // With `code` at kCode, paused before its first instruction. Records a test failure and returns
  // nullptr when KVM refuses; for tests of KvmTest.
  static std::unique_ptr<SmallVm> create(const kvm::System& system,
                                         std::span<const std::uint8_t> code,
                                         FunctionHandler::Function on_exit,
                                         SmallVmOptions options = {}) {
    auto vm = make(system, code, std::move(on_exit), options);
    EXPECT_TRUE(vm) << vm.error().message();
    return vm ? std::move(*vm) : nullptr;
  }

  Vcpu& cpu() noexcept { return *cpu_; }
  FunctionHandler& handler() noexcept { return handler_; }
  const GuestMemory& memory() const noexcept { return memory_; }

  // Asks for a pause and waits for it.
  void pause() {
    cpu_->request_pause();
    const auto paused = cpu_->wait_paused(kPatience);
    ASSERT_TRUE(paused) << paused.error().message();
  }
  x86::Registers registers() {
    x86::Registers registers;
    call([&registers](kvm::VcpuFd& fd) { registers = fd.registers().value(); });
    return registers;
  }
  void call(std::function<void(kvm::VcpuFd&)> fn) {
    const auto called = cpu_->call(std::move(fn), kPatience);
    ASSERT_TRUE(called) << called.error().message();
  }
  // What a guest sees of its machine: all of RAM and its CPU's registers, copied from another one.
  void copy_from(SmallVm& other) {
    std::vector<std::byte> ram(KiB(64));
    ASSERT_TRUE(other.memory_.read(Gpa(0), ram));
    ASSERT_TRUE(memory_.write(Gpa(0), ram));
    const x86::Registers registers = other.registers();
    x86::SystemRegisters system;
    other.call([&system](kvm::VcpuFd& fd) { system = fd.system_registers().value(); });
    call([&](kvm::VcpuFd& fd) {
      EXPECT_TRUE(fd.set_system_registers(system));
      EXPECT_TRUE(fd.set_registers(registers));
    });
  }

 private:
  SmallVm(GuestMemory memory, kvm::VmFd vm, FunctionHandler::Function on_exit)
      : memory_(std::move(memory)), vm_(std::move(vm)), handler_(std::move(on_exit)) {}

  static Result<std::unique_ptr<SmallVm>> make(const kvm::System& system,
                                               std::span<const std::uint8_t> code,
                                               FunctionHandler::Function on_exit,
                                               SmallVmOptions options) {
    std::vector<GuestRegion> regions;
    regions.push_back(VMM_TRY(GuestRegion::create(*GpaRange::create(Gpa(0), KiB(64)), {})));
    std::byte* const hva = regions.front().hva();
    GuestMemory memory = VMM_TRY(GuestMemory::create(std::move(regions)));
    VMM_TRY(memory.write(kCode, std::as_bytes(code)));
    kvm::VmFd fd = VMM_TRY(system.create_vm());
    VMM_TRY(fd.set_tss_address(Gpa(0xfffbd000)));
    VMM_TRY(fd.set_slot({.number = 0, .range = *GpaRange::create(Gpa(0), KiB(64)), .hva = hva}));
    if (options.irqchip) VMM_TRY(fd.create_irqchip());
    std::unique_ptr<SmallVm> vm(new SmallVm(std::move(memory), std::move(fd), std::move(on_exit)));
    kvm::VcpuFd vcpu = VMM_TRY(vm->vm_.create_vcpu(0));
    x86::SystemRegisters state = VMM_TRY(vcpu.system_registers());
    state.cs.base = 0;
    state.cs.selector = 0;
    VMM_TRY(vcpu.set_system_registers(state));
    x86::Registers registers;
    registers.rip = kCode.value;
    VMM_TRY(vcpu.set_registers(registers));
    const int signal = VMM_TRY(install_kick_signal(0));
    vm->cpu_ = std::make_unique<Vcpu>(std::move(vcpu), vm->handler_, signal);
    return vm;
  }

  GuestMemory memory_;
  kvm::VmFd vm_;
  FunctionHandler handler_;
  std::unique_ptr<Vcpu> cpu_;  // last: its thread ends before all else does
};

// For tests that need KVM: skips, with the reason, where there is none.
class KvmTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto system = kvm::System::open();
    if (!system && system.error().code() == ErrorCode::kNoKvm) {
      GTEST_SKIP() << "needs KVM: " << system.error().message();
    }
    ASSERT_TRUE(system) << system.error().message();
    system_.emplace(std::move(*system));
  }
  const kvm::System& system() const { return *system_; }

 private:
  std::optional<kvm::System> system_;
};

}  // namespace vmm
