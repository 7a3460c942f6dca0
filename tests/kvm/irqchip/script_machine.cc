#include "tests/kvm/irqchip/script_machine.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <utility>

#include "base/le.h"
#include "base/size.h"
#include "vmm/kick.h"
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

Result<std::unique_ptr<ScriptMachine>> ScriptMachine::create() {
  const kvm::System system = VMM_TRY(kvm::System::open());
  if (!system.capabilities().split_irqchip) {
    return fail(ErrorCode::kUnsupported, "This host's KVM cannot split the irqchip");
  }
  GuestMemory memory = VMM_TRY(map_memory());
  kvm::VmFd vm = VMM_TRY(system.create_vm());
  std::unique_ptr<ScriptMachine> machine(new ScriptMachine(std::move(memory), std::move(vm)));
  VMM_TRY(machine->build(system));
  return machine;
}

ScriptMachine::ScriptMachine(GuestMemory memory, kvm::VmFd vm)
    : memory_(std::move(memory)), vm_(std::move(vm)) {}

ScriptMachine::~ScriptMachine() = default;

Result<void> ScriptMachine::build(const kvm::System& system) {
  const GuestRegion& region = memory_.regions().front();
  VMM_TRY(vm_.set_slot({.number = 0, .range = region.range(), .hva = region.hva()}));
  VMM_TRY(vm_.enable_split_irqchip(Ioapic::kPins));
  kvm::VcpuFd cpu = VMM_TRY(vm_.create_vcpu(0));
  const auto cpuid = VMM_TRY(system.supported_cpuid());
  VMM_TRY(cpu.set_cpuid(cpuid));
  const std::vector<std::byte> bytes = guest_image();
  VMM_TRY(memory_.write(kGuest, bytes));
  const GpaRange image = x86::fixed_range(kGuest.value, bytes.size());
  const x86::EntryState entry = VMM_TRY(x86::enter_flat_long(memory_, image));
  VMM_TRY(cpu.set_system_registers(entry.system));
  VMM_TRY(cpu.set_registers(entry.registers));

  auto chips = std::make_unique<SplitIrqchip>(
      SplitIrqchip::Host{.messages = &messages_,
                         .set_routes =
                             [this](std::span<const kvm::GsiRoute> routes) {
                               ++route_changes_;
                               return vm_.set_gsi_routing(routes);
                             },
                         .host_error = [this](Error error) { host_error(std::move(error)); }});
  chips_ = chips.get();
  VMM_TRY(chips->insert_into(pio_, mmio_));
  irqs_.emplace(std::move(chips));
  const int kick_signal = VMM_TRY(install_kick_signal(0));
  vcpu_ = std::make_unique<Vcpu>(std::move(cpu), *this, kick_signal);
  chips_->set_wake([this] { vcpu_->nudge(); });
  return {};
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
      const auto action = on_report_.find(value);
      if (action != on_report_.end()) action->second();
      break;
    }
    case kInterruptPort:
      note(fmt::format("interrupt {:#x}", value));
      break;
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

AfterExit ScriptMachine::handle(kvm::VcpuFd&, VcpuExit& exit) {
  if (auto* pio = std::get_if<PioExit>(&exit)) {
    if (pio->is_write && pio->port >= kReportPort && pio->port <= kExceptionPort) {
      on_write(pio->port, static_cast<std::uint32_t>(load_le(pio->data)));
    } else if (pio->is_write) {
      pio_.write(pio_cache_, pio->port, pio->data);
    } else {
      pio_.read(pio_cache_, pio->port, pio->data);
    }
  } else if (auto* mmio = std::get_if<MmioExit>(&exit)) {
    if (mmio->is_write) {
      mmio_.write(mmio_cache_, mmio->address.value, mmio->data);
    } else {
      mmio_.read(mmio_cache_, mmio->address.value, mmio->data);
    }
  } else if (const auto* eoi = std::get_if<IoapicEoiExit>(&exit)) {
    note(fmt::format("eoi {:#x}", eoi->vector));
    chips_->on_ioapic_eoi(eoi->vector);
  } else if (!std::holds_alternative<InterruptedExit>(exit) &&
             !std::holds_alternative<IrqWindowExit>(exit)) {
    note(fmt::format("error: exit {}", kExitNames[exit.index()]));
  }
  std::lock_guard<std::mutex> lock(mutex_);
  return ended_ ? AfterExit::kPark : AfterExit::kRunOn;
}

}  // namespace vmm::test
