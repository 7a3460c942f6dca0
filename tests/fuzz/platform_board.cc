#include "tests/fuzz/platform_board.h"

#include <algorithm>

namespace vmm::test {
namespace {

constexpr std::uint32_t kIsaInterrupts = 16;
constexpr std::uint32_t kTimerGsi = 0, kTimerPin = 2;
constexpr std::uint64_t kPciConfig = 0xe000'0000;

GuestMemory small_ram() {
  std::vector<GuestRegion> regions;
  regions.push_back(GuestRegion::create(GpaRange::create(Gpa(0), 0x1'0000).value(), {}).value());
  return GuestMemory::create(std::move(regions)).value();
}

Hpet::Ports hpet_ports(PlatformBoard& board) {
  Hpet::Ports ports;
  for (std::size_t i = 0; i < Hpet::kComparators; ++i) {
    Hpet::Lines& lines = ports.lines[i];
    if (i < Hpet::kLegacyIrqs.size()) lines.legacy = board.wiring.line(Hpet::kLegacyIrqs[i]);
    for (std::uint32_t r = 0; r < Hpet::kRoutes; ++r) {
      lines.routed[r] = board.wiring.line(Hpet::kFirstRoute + r);
    }
  }
  ports.replaced = {&board.pit_gate, &board.rtc_gate};
  ports.clock = &board.clock;
  return ports;
}

TestDevice::Ports test_device_ports(PlatformBoard& board) {
  TestDevice::Ports ports;
  for (std::uint32_t gsi = 0; gsi < TestDevice::kLines; ++gsi) {
    ports.lines[gsi] = board.wiring.line(gsi);
  }
  ports.console = &board.output;
  return ports;
}

}  // namespace

Wiring::Wiring(const Clock& clock)
    : lapics(make_device<LapicBank>(
          "lapics", kCpus,
          LapicBank::Ports{.clock = &clock,
                           .on_eoi = [this](VcpuId, std::uint8_t vector) { ended_.set(vector); },
                           .tsc_khz = 2'000'000,
                           .x2apic = true})),
      pic(make_device<Pic8259>("pic", Pic8259::Ports{.intr = IrqLine(&intr_)})),
      ioapic(make_device<Ioapic>("ioapic", Ioapic::Ports{.messages = this, .routes_changed = {}})) {
  for (std::uint32_t gsi = 0; gsi < kGsis; ++gsi) inputs_[gsi].gsi = gsi;
}

IrqLine Wiring::line(std::uint32_t gsi) {
  sources_.push_back(std::make_unique<Source>(*this, inputs_[gsi]));
  return IrqLine(sources_.back().get());
}

std::vector<bool> Wiring::levels() const {
  std::vector<bool> levels;
  for (const auto& source : sources_) levels.push_back(source->level);
  return levels;
}

void Wiring::Source::set_level(bool asserted) {
  if (level == asserted) return;
  level = asserted;
  input.asserted += asserted ? 1U : -1U;
  if (input.asserted == (asserted ? 1U : 0U)) wiring.set_gsi(input.gsi, asserted);
}

void Wiring::Intr::set_level(bool asserted) {
  wiring.lapics.with([&](LapicBank& bank) { bank.lapic(VcpuId{0}).set_lint(0, asserted); });
}

// As the machine's PcChips: ISA interrupt 0 is at pin 2, GSI 2 leads nowhere.
void Wiring::set_gsi(std::uint32_t gsi, bool asserted) {
  if (gsi < kIsaInterrupts) pic.with([&](Pic8259& chip) { chip.set_pin(gsi, asserted); });
  if (gsi == kTimerPin) return;
  const std::uint32_t pin = gsi == kTimerGsi ? kTimerPin : gsi;
  ioapic.with([&](Ioapic& chip) { chip.set_pin(pin, asserted); });
}

void Wiring::send(std::uint64_t address, std::uint32_t data) {
  ++messages_;
  const auto message = decode_msi(address, data);
  if (message) lapics.with([&](LapicBank& bank) { bank.deliver(*message); });
}

void Wiring::pass_on_eois() {
  if (ended_.none()) return;
  const std::bitset<256> ended = std::exchange(ended_, {});
  ioapic.with([&](Ioapic& chip) {
    for (std::size_t vector = 0; vector < ended.size(); ++vector) {
      if (ended.test(vector)) chip.eoi(static_cast<std::uint8_t>(vector));
    }
  });
}

PlatformBoard::PlatformBoard()
    : ram(small_ram()),
      uart(make_device<Uart16550>(
          "uart0", Uart16550::Ports{.irq = wiring.line(4), .tx = &output, .on_input_space = {}})),
      i8042(make_device<I8042>("i8042", I8042::Ports{.keyboard_irq = wiring.line(1),
                                                     .aux_irq = wiring.line(12),
                                                     .events = &events,
                                                     .aux_port = true})),
      rtc(make_device<RtcCmos>(
          "rtc",
          RtcCmos::Ports{.irq = IrqLine(&rtc_gate), .alarm = IrqLine(&alarm), .clock = &clock},
          RtcCmos::Memory{})),
      pm(make_device<AcpiPm>("acpi_pm", AcpiPm::Ports{.sci = wiring.line(AcpiPmLayout::kSciIrq),
                                                      .clock = &clock,
                                                      .events = &events,
                                                      .timer_is_32_bit = false})),
      pit(make_device<Pit8254>(
          "pit", Pit8254::Ports{.irq = IrqLine(&pit_gate), .clock = &clock, .on_rearm = {}})),
      hpet(make_device<Hpet>("hpet", hpet_ports(*this))),
      debug_exit(make_device<DebugExit>("debug_exit", &events)),
      port92(make_device<Port92>("port92", &events)),
      pci(make_device<pci::HostBridge>("pci", &events)),
      hotplug(make_device<pci::Hotplug>(
          "pci_hotplug", pci::Hotplug::Ports{.event = IrqLine(&hotplug_event),
                                             .on_eject = [this](std::uint32_t) { ++ejections; }})),
      fw_cfg(make_device<FwCfg>("fw_cfg", &ram)),
      test_device(make_device<TestDevice>("test_device", test_device_ports(*this))),
      panic(make_device<Pvpanic>("pvpanic", &events)),
      post(make_device<PostCode>("post_code")) {
  for (std::uint32_t gsi = 0; gsi < Wiring::kGsis; ++gsi) outside[gsi] = wiring.line(gsi);
  place_ports();
  place_memory();
}

void PlatformBoard::Alarm::set_level(bool asserted) {
  board.pm.with([asserted](AcpiPm& chip) { chip.set_rtc_alarm(asserted); });
}

void PlatformBoard::HotplugEvent::set_level(bool asserted) {
  board.pm.with([&](AcpiPm& chip) { chip.set_gpe(pci::Hotplug::kGpe, asserted); });
}

void PlatformBoard::place(Bus& bus, const DeviceRef& device, const Window& window) {
  if (!bus.insert(window, device)) complete_ = false;
  if (std::find(all.begin(), all.end(), device) == all.end()) all.push_back(device);
}

void PlatformBoard::place_ports() {
  const Widths kByte{1}, kAll{1, 2, 4};
  using T = TestDevice;
  place(pio, uart, {Uart16550::kCom1, Uart16550::kSize, kByte});
  place(pio, i8042, {I8042::kDataPort, 1, kByte, I8042::kDataOffset});
  place(pio, i8042, {I8042::kCommandPort, 1, kByte, I8042::kCommandOffset});
  place(pio, rtc, {RtcCmos::kIndexPort, RtcCmos::kSize, kByte});
  place(pio, pm, {AcpiPmLayout::kBase, AcpiPmLayout::kSize, kAll});
  place(pio, pit, {Pit8254::kPort, Pit8254::kCountersSize, kByte, Pit8254::kCounters});
  place(pio, pit, {Pit8254::kPortBPort, 1, kByte, Pit8254::kPortB});
  place(pio, debug_exit, {DebugExit::kPort, DebugExit::kSize, kAll});
  place(pio, port92, {Port92::kPort, Port92::kSize, kByte});
  place(pio, pci, {pci::HostBridge::kPort, pci::HostBridge::kPortSize, kAll});
  place(pio, hotplug, {pci::Hotplug::kPort, pci::Hotplug::kSize, Widths{4}});
  place(pio, fw_cfg, {FwCfg::kSelectorPort, FwCfg::kSelectorSize, Widths{1, 2}});
  place(pio, fw_cfg, {FwCfg::kDmaPort, FwCfg::kDmaSize, Widths::any(), FwCfg::kDma});
  place(pio, test_device, {T::kLatchPort, T::kLatchSize, kAll, T::kLatch});
  place(pio, test_device, {T::kSecondLatchPort, T::kLatchSize, kAll, T::kSecondLatch});
  place(pio, test_device, {T::kFlushPort, 4, kAll, T::kFlush});
  place(pio, test_device, {T::kLinePort, T::kLines, kAll, T::kLineBase});
  place(pio, panic, {Pvpanic::kPort, Pvpanic::kSize, kByte});
  place(pio, post, {PostCode::kPort, PostCode::kSize, kByte});
  place(pio, wiring.pic, {Pic8259::kMasterPort, 2, kByte, Pic8259::kMaster});
  place(pio, wiring.pic, {Pic8259::kSlavePort, 2, kByte, Pic8259::kSlave});
  place(pio, wiring.pic, {Pic8259::kElcrPort, 2, kByte, Pic8259::kElcr});
}

void PlatformBoard::place_memory() {
  const Widths kAll{1, 2, 4};
  place(mmio, pci, {kPciConfig, pci::HostBridge::kMemorySize, kAll, pci::HostBridge::kMemory});
  place(
      mmio, test_device,
      {TestDevice::kMemory.value, TestDevice::kMemorySize, Widths::any(), TestDevice::kMemoryBase});
  place(mmio, wiring.ioapic, {Ioapic::kDefaultBase, Ioapic::kWindowSize, Widths{1, 4}});
  place(mmio, wiring.lapics, {Lapic::kDefaultBase, Lapic::kWindowSize, kAll});
  place(mmio, hpet, {Hpet::kBase, Hpet::kSize, Widths{4, 8}});
}

}  // namespace vmm::test
