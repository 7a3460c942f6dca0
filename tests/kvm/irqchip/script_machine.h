// A machine with one CPU that runs a script (script_guest.S), in any irqchip mode.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "devices/bus.h"
#include "devices/device_ref.h"
#include "devices/pit8254.h"
#include "memory/guest_memory.h"
#include "vmm/config.h"
#include "vmm/guest_clock.h"
#include "vmm/irq_fabric.h"
#include "vmm/kvm/msi_sink.h"
#include "vmm/kvm/system.h"
#include "vmm/split_irqchip.h"
#include "vmm/user_irqchip.h"
#include "vmm/vcpu.h"

namespace vmm::test {

// One step of the guest's.
struct Step {
  std::uint32_t operation, address = 0, value = 0, unused = 0;
};
inline Step store(std::uint32_t address, std::uint32_t value) { return {1, address, value}; }
inline Step out(std::uint32_t port, std::uint32_t value) { return {2, port, value}; }
inline Step report(std::uint32_t value) { return {3, 0, value}; }
inline Step report_word(std::uint32_t address) { return {4, address}; }
inline Step report_port(std::uint32_t port) { return {5, port}; }
inline Step wait() { return {6}; }
// A software KVM looks for interrupts now and then: loop a while before you turn them off again.
inline Step interrupts_on() { return {7}; }
inline Step interrupts_off() { return {8}; }
inline Step loop(std::uint32_t times) { return {9, 0, times}; }
inline Step write_msr(std::uint32_t index, std::uint32_t low, std::uint32_t high = 0) {
  return {10, index, low, high};
}
inline Step report_msr(std::uint32_t index) { return {11, index}; }
// Sets the TSC deadline that many ticks from now.
inline Step deadline_in(std::uint32_t ticks) { return {12, 0, ticks}; }
inline Step report_cpuid_edx(std::uint32_t leaf, std::uint32_t mask) { return {15, leaf, mask}; }
inline Step write_cr8(std::uint32_t value) { return {16, 0, value}; }
inline Step report_cr8() { return {17}; }
inline Step try_read_msr(std::uint32_t index) { return {18, index}; }
inline Step try_write_msr(std::uint32_t index, std::uint32_t low, std::uint32_t high = 0) {
  return {19, index, low, high};
}

inline Step out_word(std::uint32_t port, std::uint32_t value) { return {13, port, value}; }
inline Step report_port_word(std::uint32_t port) { return {14, port}; }

// What the guest did, in its order: "report 5", "interrupt 0x31", "eoi 0x31", "end".
using Events = std::vector<std::string>;

class ScriptMachine final : public ExitHandler {
 public:
  // Errors: kNoKvm or kUnsupported when this host cannot run it, the reason to skip.
  static Result<std::unique_ptr<ScriptMachine>> create(IrqchipMode mode);
  ~ScriptMachine() override;

  // What happens on the vCPU's thread, before the guest goes on.
  struct Actions {
    std::map<std::uint32_t, std::function<void()>> on_report, on_interrupt;
  };
  const Actions& actions() const { return actions_; }
  void set_actions(Actions actions) { actions_ = std::move(actions); }
  // Called when the guest reports this value.
  void on_report(std::uint32_t value, std::function<void()> action) {
    actions_.on_report[value] = std::move(action);
  }
  // Called in this interrupt's handler, before it ends the interrupt.
  void on_interrupt(std::uint32_t vector, std::function<void()> action) {
    actions_.on_interrupt[vector] = std::move(action);
  }
  // Starts the guest on these steps and an end.
  void start(std::vector<Step> steps);
  // Waits for the end, a minute at most (the host may be slow), and tells what happened.
  Events finish();
  // The same without EOI exits, which only split mode has.
  Events finish_without_eois() { return without_eois(finish()); }
  static Events without_eois(Events events);
  // Waits until that event has happened, a minute at most.
  bool wait_for(const std::string& event);

  IrqLine line(std::uint32_t gsi) { return irqs_->line(gsi); }
  // An interval timer at its ports, interrupt 0. Somebody has to call its on_time().
  DeviceHandle<Pit8254> add_pit(const Clock& clock);
  Bus& pio() { return pio_; }
  Bus& mmio() { return mmio_; }
  IrqFabric& irqs() { return *irqs_; }
  // To the local APICs of this mode.
  MsiSink& messages() {
    return user_ != nullptr ? static_cast<MsiSink&>(*user_) : static_cast<MsiSink&>(messages_);
  }
  const kvm::VmFd& vm() const { return vm_; }
  IrqchipMode mode() const { return mode_; }
  std::size_t route_changes() const { return route_changes_; }

  AfterExit handle(kvm::VcpuFd& cpu, VcpuExit& exit) override;
  Result<NextStep> before_entry(kvm::VcpuFd& cpu) override;
  void host_error(Error error) override { note("error " + error.message()); }

 private:
  ScriptMachine(IrqchipMode mode, GuestMemory memory, kvm::VmFd vm);
  Result<void> build(const kvm::System& system);
  Result<void> create_chips(const kvm::System& system);
  Result<std::unique_ptr<IrqController>> connect_chips(const kvm::VcpuFd& cpu);
  void on_mmio(MmioExit& exit);
  void note(std::string event);
  void on_write(std::uint16_t port, std::uint32_t value);

  const IrqchipMode mode_;
  GuestMemory memory_;
  kvm::VmFd vm_;
  GuestClock clock_;
  kvm::KvmMsiSink messages_{vm_};
  std::optional<IrqFabric> irqs_;
  SplitIrqchip* split_ = nullptr;  // owned by irqs_, as is the next
  UserIrqchip* user_ = nullptr;
  Bus pio_{BusKind::kPio};
  Bus mmio_{BusKind::kMmio};
  BusCache pio_cache_{VcpuId{0}};
  BusCache mmio_cache_{VcpuId{0}};
  Actions actions_;
  std::size_t route_changes_ = 0;

  std::mutex mutex_;  // guards the next two
  std::condition_variable changed_;
  Events events_;
  bool ended_ = false;
  std::unique_ptr<Vcpu> vcpu_;  // last: its thread ends first
};

}  // namespace vmm::test
