#include "tests/fuzz/device_operations.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <vector>

#include "base/le.h"
#include "devices/acpi_pm.h"
#include "devices/bus.h"
#include "devices/capture_sink.h"
#include "devices/debug_console.h"
#include "devices/debug_exit.h"
#include "devices/fw_cfg.h"
#include "devices/i8042.h"
#include "devices/ioapic.h"
#include "devices/lapic_bank.h"
#include "devices/pci/host_bridge.h"
#include "devices/pic8259.h"
#include "devices/port92.h"
#include "devices/post_code.h"
#include "devices/pvpanic.h"
#include "devices/rtc_cmos.h"
#include "devices/state_io.h"
#include "devices/test_device.h"
#include "devices/uart16550.h"
#include "tests/support/fakes/manual_clock.h"
#include "tests/support/fakes/recording_irq_pin.h"

namespace vmm::test {
namespace {

constexpr std::size_t kMostOperations = 4096;
constexpr std::size_t kOutputLimit = 4096;

// The program, read from its front; past its end it is all zeros.
class Bytes {
 public:
  explicit Bytes(std::span<const std::uint8_t> rest) : rest_(rest) {}
  bool empty() const { return rest_.empty(); }
  std::uint8_t u8() {
    if (rest_.empty()) return 0;
    const std::uint8_t value = rest_.front();
    rest_ = rest_.subspan(1);
    return value;
  }
  std::uint64_t number(std::size_t bytes) {
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < bytes; ++i) value |= static_cast<std::uint64_t>(u8()) << (8 * i);
    return value;
  }

 private:
  std::span<const std::uint8_t> rest_;
};

class NullEvents final : public MachineEvents {
 public:
  void request(GuestRequest, std::uint32_t) override {}
};

// From the I/O APIC to the local APICs, whose lock comes after its own.
class ApicMessages final : public MsiSink {
 public:
  explicit ApicMessages(const DeviceHandle<LapicBank>& lapics) : lapics_(lapics) {}
  void send(std::uint64_t address, std::uint32_t data) override {
    const auto message = decode_msi(address, data);
    if (message) lapics_.with([&](LapicBank& bank) { bank.deliver(*message); });
  }

 private:
  const DeviceHandle<LapicBank>& lapics_;
};

// A bounded sink that falls behind on demand.
class Output final : public ByteSink {
 public:
  void write(std::span<const std::byte> bytes) override { kept_.write(bytes); }
  bool writable() const noexcept override { return writable_; }
  void set_writable(bool writable) { writable_ = writable; }

 private:
  CaptureSink kept_{kOutputLimit};
  bool writable_ = true;
};

// What a device that reads and writes memory finds.
GuestMemory small_ram() {
  constexpr std::uint64_t kSize = 0x1'0000;
  std::vector<GuestRegion> regions;
  regions.push_back(GuestRegion::create(GpaRange::create(Gpa(0), kSize).value(), {}).value());
  return GuestMemory::create(std::move(regions)).value();
}

// All devices with their collaborators, powered on.
class Board {
 public:
  Board() {
    place(pio_, uart_, {.base = Uart16550::kCom1, .size = Uart16550::kSize, .widths = {1}});
    place(pio_, i8042_, {.base = I8042::kDataPort, .size = 1, .widths = {1}});
    place(pio_, i8042_,
          {.base = I8042::kCommandPort, .size = 1, .widths = {1}, .offset = I8042::kCommandOffset});
    place(pio_, rtc_, {.base = RtcCmos::kIndexPort, .size = RtcCmos::kSize, .widths = {1}});
    place(pio_, pm_,
          {.base = AcpiPmLayout::kBase, .size = AcpiPmLayout::kSize, .widths = {1, 2, 4}});
    place(pio_, exit_, {.base = DebugExit::kPort, .size = DebugExit::kSize, .widths = {1, 2, 4}});
    place(pio_, console_, {.base = DebugConsole::kPort, .size = 1, .widths = {1}});
    place(pio_, port92_, {.base = Port92::kPort, .size = 1, .widths = {1}});
    place(
        pio_, pci_,
        {.base = pci::HostBridge::kPort, .size = pci::HostBridge::kPortSize, .widths = {1, 2, 4}});
    place(mmio_, pci_,
          {.base = 0xe000'0000,
           .size = pci::HostBridge::kMemorySize,
           .widths = {1, 2, 4},
           .offset = pci::HostBridge::kMemory});
    place(pio_, fw_cfg_,
          {.base = FwCfg::kSelectorPort, .size = FwCfg::kSelectorSize, .widths = {1, 2}});
    place(pio_, fw_cfg_, {.base = FwCfg::kDmaPort, .size = FwCfg::kDmaSize, .offset = FwCfg::kDma});
    place(pio_, test_, {.base = TestDevice::kLatchPort, .size = 4, .widths = {1, 2, 4}});
    place(pio_, test_, {.base = TestDevice::kFlushPort, .size = 4, .offset = TestDevice::kFlush});
    place(pio_, test_,
          {.base = TestDevice::kLinePort,
           .size = TestDevice::kLines,
           .offset = TestDevice::kLineBase});
    place(mmio_, test_,
          {.base = TestDevice::kMemory.value,
           .size = TestDevice::kMemorySize,
           .offset = TestDevice::kMemoryBase});
    place(pio_, panic_, {.base = Pvpanic::kPort, .size = 1, .widths = {1}});
    place(pio_, post_, {.base = PostCode::kPort, .size = 1, .widths = {1}});
    place(pio_, pic_, {.base = Pic8259::kMasterPort, .size = 2, .widths = {1}});
    place(pio_, pic_,
          {.base = Pic8259::kSlavePort, .size = 2, .widths = {1}, .offset = Pic8259::kSlave});
    place(pio_, pic_,
          {.base = Pic8259::kElcrPort, .size = 2, .widths = {1}, .offset = Pic8259::kElcr});
    place(mmio_, ioapic_,
          {.base = Ioapic::kDefaultBase, .size = Ioapic::kWindowSize, .widths = {1, 4}});
    place(mmio_, lapics_,
          {.base = Lapic::kDefaultBase, .size = Lapic::kWindowSize, .widths = {1, 2, 4}});
  }

  const char* step(Bytes& program);
  const char* check() const;
  const char* wake();

 private:
  void place(Bus& bus, const DeviceRef& device, const Window& window) {
    if (!bus.insert(window, device)) misplaced_ = true;
    if (std::find(all_.begin(), all_.end(), device) == all_.end()) all_.push_back(device);
  }
  const char* access(Bus& bus, BusCache& cache, std::uint64_t address, bool write, Bytes& program);
  const char* save_and_restore();
  void hostile_restore(Bytes& program);
  void move_a_window(Bytes& program);
  void push_input(Bytes& program);
  void drive_pins(Bytes& program);
  void drive_cpus(Bytes& program);
  void advance(Bytes& program);

  ManualClock clock_;
  NullEvents events_;
  Output output_;
  std::array<RecordingIrqPin, 7> pins_;
  Bus pio_{BusKind::kPio};
  Bus mmio_{BusKind::kMmio};
  BusCache pio_cache_{VcpuId{0}};
  BusCache mmio_cache_{VcpuId{0}};
  std::vector<DeviceRef> all_;
  bool misplaced_ = false;

  DeviceHandle<Uart16550> uart_ =
      make_device<Uart16550>("uart0", Uart16550::Ports{.irq = IrqLine(&pins_[0]), .tx = &output_});
  DeviceHandle<I8042> i8042_ =
      make_device<I8042>("i8042", I8042::Ports{.keyboard_irq = IrqLine(&pins_[1]),
                                               .aux_irq = IrqLine(&pins_[2]),
                                               .events = &events_,
                                               .aux_port = true});
  DeviceHandle<RtcCmos> rtc_ = make_device<RtcCmos>(
      "rtc", RtcCmos::Ports{.irq = IrqLine(&pins_[3]), .clock = &clock_}, RtcCmos::Memory{});
  DeviceHandle<AcpiPm> pm_ =
      make_device<AcpiPm>("acpi_pm", AcpiPm::Ports{.sci = IrqLine(&pins_[4]),
                                                   .clock = &clock_,
                                                   .events = &events_,
                                                   .timer_is_32_bit = false});
  DeviceHandle<DebugExit> exit_ = make_device<DebugExit>("debug_exit", &events_);
  DeviceHandle<DebugConsole> console_ = make_device<DebugConsole>("debug_console", &output_);
  DeviceHandle<Port92> port92_ = make_device<Port92>("port92", &events_);
  DeviceHandle<pci::HostBridge> pci_ = make_device<pci::HostBridge>("pci", &events_);
  GuestMemory ram_ = small_ram();
  DeviceHandle<FwCfg> fw_cfg_ = make_device<FwCfg>("fw_cfg", &ram_);
  DeviceHandle<TestDevice> test_ =
      make_device<TestDevice>("test_device", TestDevice::Ports{.lines = {IrqLine(&pins_[6])}});
  DeviceHandle<Pvpanic> panic_ = make_device<Pvpanic>("pvpanic", &events_);
  DeviceHandle<PostCode> post_ = make_device<PostCode>("post_code");
  DeviceHandle<Pic8259> pic_ =
      make_device<Pic8259>("pic", Pic8259::Ports{.intr = IrqLine(&pins_[5])});
  DeviceHandle<LapicBank> lapics_ = make_device<LapicBank>(
      "lapics", 2U, LapicBank::Ports{.clock = &clock_, .tsc_khz = 2'000'000, .x2apic = true});
  ApicMessages messages_{lapics_};
  DeviceHandle<Ioapic> ioapic_ =
      make_device<Ioapic>("ioapic", Ioapic::Ports{.messages = &messages_, .routes_changed = {}});
};

nlohmann::json save(const DeviceRef& device) {
  StateWriter writer;
  device.with([&](Device& d) { d.save(writer); });
  return writer.document();
}

bool restore(const DeviceRef& device, const nlohmann::json& document) {
  return device.with([&](Device& d) { return d.restore(StateReader(document)).has_value(); });
}

const char* Board::check() const { return misplaced_ ? "the board's windows overlap" : nullptr; }

// The buffer stands between two guards; what the bus gives must not depend on what was in it.
const char* Board::access(Bus& bus, BusCache& cache, std::uint64_t address, bool write,
                          Bytes& program) {
  constexpr std::byte kGuard{0xc7};
  constexpr std::size_t kLongest = 32;
  std::array<std::byte, kLongest + 2> buffer;
  buffer.fill(kGuard);
  const std::size_t width = std::min<std::size_t>(1U << (program.u8() % 8), kLongest);
  const std::span<std::byte> data = std::span(buffer).subspan(1, width);
  if (write) {
    store_le(data, program.number(std::min<std::size_t>(width, 8)));
    bus.write(cache, address, data);
  } else if (!bus.read(cache, address, data) && width == 1 && data[0] != std::byte{0xff}) {
    return "an unclaimed read is not all ones";
  }
  if (buffer.front() != kGuard || buffer[width + 1] != kGuard) return "an access left its buffer";
  return nullptr;
}

// An event loop that calls a device when it asked to be called must not have to call it again.
template <typename D>
const char* wake_one(const DeviceHandle<D>& device, std::chrono::nanoseconds now) {
  return device.with([&](D& d) -> const char* {
    const auto due = d.next_event();
    if (!due || *due > now) return nullptr;
    d.on_time();
    const auto next = d.next_event();
    return next && *next <= now ? "a device asks to be woken without end" : nullptr;
  });
}

const char* Board::wake() {
  const char* rtc = wake_one(rtc_, clock_.now());
  if (rtc != nullptr) return rtc;
  const char* pm = wake_one(pm_, clock_.now());
  if (pm != nullptr) return pm;
  return lapics_.with([this](LapicBank& bank) -> const char* {
    for (std::uint32_t i = 0; i < bank.count(); ++i) {
      Lapic& lapic = bank.lapic(VcpuId{i});
      lapic.on_time();
      const auto next = lapic.next_event();
      if (next && *next <= clock_.now()) return "a local APIC asks to be woken without end";
    }
    return nullptr;
  });
}

// What a CPU does with its local APIC but for the page.
void Board::drive_cpus(Bytes& program) {
  const std::uint8_t what = program.u8();
  const std::uint32_t number = program.u8();
  const std::uint64_t value = program.number(8);
  lapics_.with([&](LapicBank& bank) {
    Lapic& lapic = bank.lapic(VcpuId{what & 1U});
    switch (what >> 1 & 7) {
      case 0:
        lapic.set_base(value);
        break;
      case 1:
        lapic.write_msr(Lapic::kFirstMsr + number, value);
        break;
      case 2:
        lapic.read_msr(Lapic::kFirstMsr + number);
        break;
      case 3:
        lapic.set_tsc_deadline(value, value / 3);
        break;
      case 4:
        if (lapic.has_interrupt() && !lapic.wants_ext_int()) lapic.acknowledge();
        break;
      case 5:
        lapic.set_cr8(value & 0xf);
        lapic.set_lint(number, (value & 0x10) != 0);
        break;
      case 6:
        lapic.take_init();
        lapic.take_start_up();
        lapic.take_nmi();
        break;
      default:
        lapic.set_halted((value & 1) != 0);
    }
  });
}

const char* Board::save_and_restore() {
  for (const DeviceRef& device : all_) {
    const nlohmann::json before = save(device);
    if (!restore(device, before)) return "a device refuses its own state";
    if (save(device) != before) return "a device's state changes by being restored";
  }
  std::array<bool, 7> levels{};
  for (std::size_t i = 0; i < pins_.size(); ++i) levels[i] = pins_[i].level();
  for (const DeviceRef& device : all_) {
    const nlohmann::json state = save(device);
    device.with([](Device& d) { d.reset(); });
    if (!restore(device, state)) return "a device refuses its own state";
  }
  for (std::size_t i = 0; i < pins_.size(); ++i) {
    if (pins_[i].level() != levels[i]) return "a restored line has another level";
  }
  return nullptr;
}

// One number of one device's state becomes another one.
void Board::hostile_restore(Bytes& program) {
  const DeviceRef& device = all_[program.u8() % all_.size()];
  nlohmann::json document = save(device);
  nlohmann::json& state = document["state"];
  if (state.empty()) return;
  auto field = state.begin();
  std::advance(field, program.u8() % state.size());
  nlohmann::json* value = &*field;
  const std::uint8_t element = program.u8();
  if (value->is_array() && !value->empty()) value = &(*value)[element % value->size()];
  const std::uint64_t number = program.number(1U << (element >> 6));
  if (value->is_boolean()) {
    *value = (number & 1) != 0;
  } else if (value->is_number_unsigned()) {
    *value = number;
  } else if (value->is_number()) {
    *value = static_cast<std::int64_t>(number);
  }
  restore(device, document);
}

void Board::move_a_window(Bytes& program) {
  const std::vector<Window> windows = pio_.windows();
  const std::uint64_t base = windows[program.u8() % windows.size()].base;
  // Refusals are right answers.
  (void)pio_.move(base, program.number(2));
}

void Board::push_input(Bytes& program) {
  std::array<std::byte, 100> input;
  input.fill(std::byte{program.u8()});
  uart_.with([&](Uart16550& uart) { uart.push_input(input); });
}

void Board::drive_pins(Bytes& program) {
  const std::uint8_t what = program.u8();
  const std::uint32_t pin = what & 0x1f;
  const bool level = (what & 0x20) != 0;
  pic_.with([&](Pic8259& pic) { pic.set_pin(pin, level); });
  ioapic_.with([&](Ioapic& ioapic) {
    ioapic.set_pin(pin, level);
    if ((what & 0x40) != 0) ioapic.eoi(program.u8());
  });
  if ((what & 0x80) != 0) pic_.with([](Pic8259& pic) { (void)pic.acknowledge(); });
}

void Board::advance(Bytes& program) {
  // From nanoseconds to a day.
  const auto by = static_cast<std::int64_t>(program.number(2) << (program.u8() % 32));
  if (clock_.now() < std::chrono::hours(24 * 365)) clock_.advance(std::chrono::nanoseconds(by));
}

const char* Board::step(Bytes& program) {
  const std::uint8_t operation = program.u8();
  const bool write = (operation & 0x80) != 0;
  switch (operation & 0x0f) {
    case 0:  // any port
      return access(pio_, pio_cache_, program.number(2), write, program);
    case 1:
    case 2:
    case 3:
    case 4:
    case 5:
    case 6: {  // a port at which something answers
      const std::vector<Window> windows = pio_.windows();
      const Window& window = windows[program.u8() % windows.size()];
      const std::uint64_t at = window.base + program.u8() % window.size;
      return access(pio_, pio_cache_, at, write, program);
    }
    case 7:
      if ((operation & 0x40) != 0) {
        return access(mmio_, mmio_cache_, Lapic::kDefaultBase + program.number(2) % 0x400, write,
                      program);
      }
      return access(mmio_, mmio_cache_, Ioapic::kDefaultBase + program.number(2) % 0x48, write,
                    program);
    case 8: {
      // The windows of PCI configuration and test memory, or anywhere.
      const std::uint64_t at = program.number(8);
      const std::uint8_t where = operation >> 4 & 3;
      const std::uint64_t base = where == 1 ? 0xe000'0000 : TestDevice::kMemory.value;
      // Not much of the test memory: it is saved and restored again and again.
      const std::uint64_t size = where == 1 ? 0x2000 : 0x40;
      return access(mmio_, mmio_cache_, where == 0 || where == 3 ? at : base + at % size, write,
                    program);
    }
    case 9:
      push_input(program);
      return nullptr;
    case 10:
      advance(program);
      return nullptr;
    case 11:
      output_.set_writable(write);
      uart_.with([](Uart16550& uart) { uart.poke(); });
      pm_.with([](AcpiPm& pm) { pm.press_power_button(); });
      return nullptr;
    case 12:
      move_a_window(program);
      return nullptr;
    case 13:
      hostile_restore(program);
      return nullptr;
    case 14:
      if (write) {
        drive_cpus(program);
        return nullptr;
      }
      drive_pins(program);
      return nullptr;
    default:
      if (write) return save_and_restore();
      for (const DeviceRef& device : all_) device.with([](Device& d) { d.reset(); });
      return nullptr;
  }
}

}  // namespace

const char* run_device_operations(std::span<const std::uint8_t> program) {
  Board board;
  Bytes bytes(program);
  const char* broken = board.check();
  for (std::size_t i = 0; broken == nullptr && i < kMostOperations && !bytes.empty(); ++i) {
    broken = board.step(bytes);
    if (broken == nullptr) broken = board.wake();
  }
  return broken;
}

}  // namespace vmm::test
