#include "tests/kvm/irqchip/script_machine.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <utility>

#include "base/le.h"
#include "base/size.h"
#include "vmm/kick.h"
#include "vmm/kvm/irq_line_controller.h"
#include "vmm/kvm/pc_routing.h"
#include "vmm/x86/cpuid.h"
#include "vmm/x86/entry_state.h"
#include "vmm/x86/layout.h"

namespace vmm::test {
namespace {

constexpr Gpa kGuest{0x1'0000};
constexpr Gpa kList{0x2'0000};
constexpr std::uint16_t kReportPort = 0x10;
constexpr std::uint16_t kInterruptPort = 0x11;
constexpr std::uint16_t kEndPort = 0x12;
constexpr std::uint16_t kExceptionPort = 0x13;
constexpr std::chrono::minutes kPatience{1};

std::vector<std::byte> guest_image() {
  std::ifstream file(VMM_SCRIPT_GUEST, std::ios::binary);
  std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
  const auto image = std::as_bytes(std::span(bytes));
  return {image.begin(), image.end()};
}

Result<GuestMemory> map_memory() {
  std::vector<GuestRegion> regions;
  const GpaRange range = x86::fixed_range(0, MiB(2));
  regions.push_back(VMM_TRY(GuestRegion::create(range, {})));
  return GuestMemory::create(std::move(regions));
}

}  // namespace

Result<std::unique_ptr<ScriptMachine>> ScriptMachine::create(IrqchipMode mode) {
  const kvm::System system = VMM_TRY(kvm::System::open());
  const kvm::Capabilities& caps = system.capabilities();
  if ((mode == IrqchipMode::kSplit && !caps.split_irqchip) ||
      (mode == IrqchipMode::kKernel && !caps.irqchip)) {
    return fail(ErrorCode::kUnsupported, "This host's KVM does not have this irqchip");
  }
  GuestMemory memory = VMM_TRY(map_memory());
  kvm::VmFd vm = VMM_TRY(system.create_vm());
  std::unique_ptr<ScriptMachine> machine(new ScriptMachine(mode, std::move(memory), std::move(vm)));
  VMM_TRY(machine->build(system));
  return machine;
}

ScriptMachine::ScriptMachine(IrqchipMode mode, GuestMemory memory, kvm::VmFd vm)
    : mode_(mode), memory_(std::move(memory)), vm_(std::move(vm)) {}

ScriptMachine::~ScriptMachine() = default;

Result<void> ScriptMachine::create_chips(const kvm::System& system) {
  if (mode_ == IrqchipMode::kSplit) return vm_.enable_split_irqchip(Ioapic::kPins);
  if (mode_ == IrqchipMode::kKernel) {
    VMM_TRY(vm_.create_irqchip());
    return vm_.set_gsi_routing(kvm::pc_routing());
  }
  if (!system.capabilities().user_space_msr || !system.capabilities().msr_filter) return {};
  return vm_.trap_msrs(UserIrqchip::traps(), true);
}

Result<std::unique_ptr<IrqController>> ScriptMachine::connect_chips(const kvm::VcpuFd& cpu) {
  if (mode_ == IrqchipMode::kKernel) return std::make_unique<kvm::IrqLineController>(vm_);
  if (mode_ == IrqchipMode::kUser) {
    auto chips = std::make_unique<UserIrqchip>(
        UserIrqchip::Options{.clock = &clock_, .tsc_khz = VMM_TRY(cpu.tsc_khz()), .x2apic = true});
    user_ = chips.get();
    VMM_TRY(chips->insert_into(pio_, mmio_));
    chips->set_wake([this](VcpuId) { vcpu_->nudge(); });
    return chips;
  }
  auto chips = std::make_unique<SplitIrqchip>(
      SplitIrqchip::Host{.messages = &messages_,
                         .set_routes =
                             [this](std::span<const kvm::GsiRoute> routes) {
                               ++route_changes_;
                               return vm_.set_gsi_routing(routes);
                             },
                         .host_error = [this](Error error) { host_error(std::move(error)); }});
  split_ = chips.get();
  VMM_TRY(chips->insert_into(pio_, mmio_));
  chips->set_wake([this] { vcpu_->nudge(); });
  return chips;
}

Result<void> ScriptMachine::build(const kvm::System& system) {
  const GuestRegion& region = memory_.regions().front();
  VMM_TRY(vm_.set_slot({.number = 0, .range = region.range(), .hva = region.hva()}));
  VMM_TRY(create_chips(system));
  kvm::VcpuFd cpu = VMM_TRY(vm_.create_vcpu(0));
  x86::CpuidPolicy policy;
  policy.local_apic =
      mode_ == IrqchipMode::kUser ? x86::LocalApic::kUserSpace : x86::LocalApic::kKernel;
  policy.tsc_deadline = true;
  const auto host = VMM_TRY(system.supported_cpuid());
  const auto table = VMM_TRY(x86::guest_cpuid(host, policy));
  VMM_TRY(cpu.set_cpuid(table));
  const std::vector<std::byte> bytes = guest_image();
  VMM_TRY(memory_.write(kGuest, bytes));
  const GpaRange image = x86::fixed_range(kGuest.value, bytes.size());
  const x86::EntryState entry = VMM_TRY(x86::enter_flat_long(memory_, image));
  VMM_TRY(cpu.set_system_registers(entry.system));
  VMM_TRY(cpu.set_registers(entry.registers));

  irqs_.emplace(VMM_TRY(connect_chips(cpu)));
  const int kick_signal = VMM_TRY(install_kick_signal(0));
  clock_.start();
  vcpu_ = std::make_unique<Vcpu>(std::move(cpu), *this, kick_signal);
  return {};
}

Result<NextStep> ScriptMachine::before_entry(kvm::VcpuFd& cpu) {
  if (user_ != nullptr) return user_->before_entry(cpu);
  if (split_ != nullptr) VMM_TRY(split_->before_entry(cpu));
  return NextStep{};
}

DeviceHandle<Pit8254> ScriptMachine::add_pit(const Clock& clock) {
  auto pit = make_device<Pit8254>(
      "pit", Pit8254::Ports{.irq = line(Pit8254::kIrq), .clock = &clock, .on_rearm = {}});
  EXPECT_TRUE(pio_.insert({Pit8254::kPort, Pit8254::kCountersSize, Widths{1}}, pit));
  return pit;
}

void ScriptMachine::start(std::vector<Step> steps) {
  steps.push_back({0});
  ASSERT_TRUE(memory_.write(kList, std::as_bytes(std::span(steps))));
  vcpu_->resume();
}

Events ScriptMachine::finish() {
  std::unique_lock<std::mutex> lock(mutex_);
  if (!changed_.wait_for(lock, kPatience, [this] { return ended_; })) events_.push_back("timeout");
  return events_;
}

Events ScriptMachine::without_eois(Events events) {
  std::erase_if(events, [](const std::string& event) { return event.starts_with("eoi "); });
  return events;
}

bool ScriptMachine::wait_for(const std::string& event) {
  std::unique_lock<std::mutex> lock(mutex_);
  return changed_.wait_for(lock, kPatience, [&] {
    return std::find(events_.begin(), events_.end(), event) != events_.end();
  });
}

void ScriptMachine::note(std::string event) {
  std::lock_guard<std::mutex> lock(mutex_);
  ended_ = ended_ || event == "end" || event.starts_with("exception") || event.starts_with("error");
  events_.push_back(std::move(event));
  changed_.notify_all();
}

void ScriptMachine::on_write(std::uint16_t port, std::uint32_t value) {
  switch (port) {
    case kReportPort: {
      note(fmt::format("report {:#x}", value));
      const auto action = actions_.on_report.find(value);
      if (action != actions_.on_report.end()) action->second();
      break;
    }
    case kInterruptPort: {
      note(fmt::format("interrupt {:#x}", value));
      const auto action = actions_.on_interrupt.find(value);
      if (action != actions_.on_interrupt.end()) action->second();
      break;
    }
    case kEndPort:
      note("end");
      break;
    case kExceptionPort:
      note(fmt::format("exception {}", value));
      break;
    default:
      break;
  }
}

void ScriptMachine::on_mmio(MmioExit& exit) {
  const std::uint64_t address = exit.address.value;
  if (exit.is_write) {
    if (user_ != nullptr && user_->write(VcpuId{0}, address, exit.data)) return;
    mmio_.write(mmio_cache_, address, exit.data);
  } else {
    if (user_ != nullptr && user_->read(VcpuId{0}, address, exit.data)) return;
    mmio_.read(mmio_cache_, address, exit.data);
  }
}

AfterExit ScriptMachine::handle(kvm::VcpuFd& cpu, VcpuExit& exit) {
  if (user_ != nullptr) user_->on_exit(cpu);
  if (auto* pio = std::get_if<PioExit>(&exit)) {
    if (pio->is_write && pio->port >= kReportPort && pio->port <= kExceptionPort) {
      on_write(pio->port, static_cast<std::uint32_t>(load_le(pio->data)));
    } else if (pio->is_write) {
      pio_.write(pio_cache_, pio->port, pio->data);
    } else {
      pio_.read(pio_cache_, pio->port, pio->data);
    }
  } else if (auto* mmio = std::get_if<MmioExit>(&exit)) {
    on_mmio(*mmio);
  } else if (const auto* eoi = std::get_if<IoapicEoiExit>(&exit); eoi && split_ != nullptr) {
    note(fmt::format("eoi {:#x}", eoi->vector));
    split_->on_ioapic_eoi(eoi->vector);
  } else if (std::holds_alternative<HltExit>(exit) && user_ != nullptr) {
    user_->on_halt(VcpuId{0});
  } else if (const auto* msr = std::get_if<MsrExit>(&exit); msr && user_ != nullptr) {
    const auto known = user_->on_msr(cpu, *msr);
    if (known && !*known) cpu.answer_msr(0, true);
  } else if (!std::holds_alternative<InterruptedExit>(exit) &&
             !std::holds_alternative<TprExit>(exit) &&
             !std::holds_alternative<IrqWindowExit>(exit)) {
    note(fmt::format("error: exit {}", kExitNames[exit.index()]));
  }
  if (user_ != nullptr) user_->after_exit(VcpuId{0});
  std::lock_guard<std::mutex> lock(mutex_);
  return ended_ ? AfterExit::kPark : AfterExit::kRunOn;
}

}  // namespace vmm::test
