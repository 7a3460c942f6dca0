#include "tests/fuzz/device_operations.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/le.h"
#include "devices/state_io.h"
#include "tests/fuzz/operation_source.h"
#include "tests/fuzz/platform_board.h"

namespace vmm::test {
namespace {

constexpr std::uint64_t kMostOperations = 4096;  // of one list of bytes
// An access may make the I/O APIC look at each of its pins; the test device has as many lines.
constexpr std::uint64_t kMostMessages = 4 * Ioapic::kPins;

nlohmann::json save(const DeviceRef& device) {
  StateWriter writer;
  device.with([&](Device& d) { d.save(writer); });
  return writer.document();
}

bool restore(const DeviceRef& device, const nlohmann::json& document) {
  return device.with([&](Device& d) { return d.restore(StateReader(document)).has_value(); });
}

class Run {
 public:
  explicit Run(OperationSource& source) : source_(source) {}
  OperationsOutcome go(std::uint64_t most);

 private:
  const char* step();
  const char* access(Bus& bus, BusCache& cache, std::uint64_t address, bool write);
  const char* access_port(bool write);
  const char* access_apics(std::uint8_t operation);
  const char* access_memory(std::uint8_t operation);
  const char* save_and_restore();
  bool is_controller(const DeviceRef& device) const;
  void hostile_restore();
  void move_a_window();
  void push_input();
  void read_fw_cfg_by_dma();
  void drive_lines();
  void drive_cpus();
  void take_interrupt(VcpuId cpu);
  void advance();
  void out(std::uint16_t port, std::uint64_t value);
  void store(std::uint64_t address, std::uint64_t value);
  void set_up_a_chip();
  void set_up_ioapic();
  void set_up_lapic();
  void set_up_timers();
  template <typename D>
  const char* wake_one(const DeviceHandle<D>& device);
  const char* wake();
  const char* check_pins() const;

  OperationSource& source_;
  PlatformBoard board_;
  BusCache pio_cache_{VcpuId{0}};
  std::array<BusCache, Wiring::kCpus> mmio_caches_{BusCache(VcpuId{0}), BusCache(VcpuId{1})};
  bool sound_ = true;  // nobody has made up a device's state
  OperationsOutcome outcome_;
};

// The buffer stands between two guards; what the bus gives must not depend on what was in it.
const char* Run::access(Bus& bus, BusCache& cache, std::uint64_t address, bool write) {
  constexpr std::byte kGuard{0xc7};
  constexpr std::size_t kLongest = 32;
  constexpr std::array<std::size_t, 8> kWidths{1, 2, 4, 8, 4, 1, 4, kLongest};
  std::array<std::byte, kLongest + 2> buffer;
  buffer.fill(kGuard);
  const std::size_t width = kWidths[source_.u8() % kWidths.size()];
  const std::span<std::byte> data = std::span(buffer).subspan(1, width);
  if (write) {
    store_le(data, source_.number(std::min<std::size_t>(width, 8)));
    bus.write(cache, address, data);
  } else if (!bus.read(cache, address, data) && width == 1 && data[0] != std::byte{0xff}) {
    return "an unclaimed read is not all ones";
  }
  if (buffer.front() != kGuard || buffer[width + 1] != kGuard) return "an access left its buffer";
  return nullptr;
}

// A port at which something answers.
const char* Run::access_port(bool write) {
  const std::vector<Window> windows = board_.pio.windows();
  const Window& window = windows[source_.u8() % windows.size()];
  return access(board_.pio, pio_cache_, window.base + source_.u8() % window.size, write);
}

// Mostly where registers are.
const char* Run::access_apics(std::uint8_t operation) {
  constexpr std::array<std::uint64_t, 4> kIoapic{Ioapic::kIoregsel, Ioapic::kIowin, Ioapic::kIowin,
                                                 Ioapic::kEoi};
  const bool write = (operation & 0x80) != 0;
  const auto number = static_cast<std::uint64_t>(source_.u8() | source_.u8() << 8);
  const bool anywhere = number >> 12 == 0;
  BusCache& cache = mmio_caches_[operation >> 4 & 1];
  if ((operation & 0x40) != 0) {
    const std::uint64_t offset = anywhere ? number : number % 0x40 * 16;
    return access(board_.mmio, cache, Lapic::kDefaultBase + offset, write);
  }
  const std::uint64_t offset = anywhere ? number % 0x48 : kIoapic[number % kIoapic.size()];
  return access(board_.mmio, cache, Ioapic::kDefaultBase + offset, write);
}

// PCI configuration, test memory, the HPET, or anywhere.
const char* Run::access_memory(std::uint8_t operation) {
  struct Place {
    std::uint64_t base, size;
  };
  // Not much of the test memory: it is saved and restored again and again.
  constexpr std::array<Place, 4> kPlaces{
      {{0, ~0ULL}, {0xe000'0000, 0x2000}, {TestDevice::kMemory.value, 0x40}, {Hpet::kBase, 0x160}}};
  const Place place = kPlaces[operation >> 4 & 3];
  std::uint64_t offset = source_.number(8) % place.size;
  if (place.base == Hpet::kBase && (operation & 0x40) != 0) offset &= ~7ULL;
  return access(board_.mmio, mmio_caches_[0], place.base + offset, (operation & 0x80) != 0);
}

// Lines that others drive when they are restored change these, too.
bool Run::is_controller(const DeviceRef& device) const {
  return device == board_.wiring.pic || device == board_.wiring.ioapic ||
         device == board_.wiring.lapics;
}

const char* Run::save_and_restore() {
  for (const DeviceRef& device : board_.all) {
    const nlohmann::json before = save(device);
    if (!restore(device, before)) return "a device refuses its own state";
    if (save(device) != before) return "a device's state changes by being restored";
  }
  // As a machine does: all are saved, all are new, and all are restored, interrupt controllers
  // last.
  const std::vector<bool> levels = board_.wiring.levels();
  std::vector<nlohmann::json> states;
  for (const DeviceRef& device : board_.all) states.push_back(save(device));
  for (const DeviceRef& device : board_.all) device.with([](Device& d) { d.reset(); });
  for (const bool controllers : {false, true}) {
    for (std::size_t i = 0; i < states.size(); ++i) {
      if (is_controller(board_.all[i]) != controllers) continue;
      if (!restore(board_.all[i], states[i])) return "a device refuses its own state";
    }
  }
  if (board_.wiring.levels() != levels) return "a restored line has another level";
  for (std::size_t i = 0; i < states.size(); ++i) {
    if (save(board_.all[i]) != states[i])
      return "a device's state changes while others are restored";
  }
  return nullptr;
}

// One number of one device's state becomes another one.
void Run::hostile_restore() {
  const DeviceRef& device = board_.all[source_.u8() % board_.all.size()];
  nlohmann::json document = save(device);
  nlohmann::json& state = document["state"];
  if (state.empty()) return;
  auto field = state.begin();
  std::advance(field, source_.u8() % state.size());
  nlohmann::json* value = &*field;
  const std::uint8_t element = source_.u8();
  if (value->is_array() && !value->empty()) value = &(*value)[element % value->size()];
  const std::uint64_t number = source_.number(1U << (element >> 6));
  if (value->is_boolean()) {
    *value = (number & 1) != 0;
  } else if (value->is_number_unsigned()) {
    *value = number;
  } else if (value->is_number()) {
    *value = static_cast<std::int64_t>(number);
  }
  if (restore(device, document)) sound_ = false;
}

void Run::move_a_window() {
  const std::vector<Window> windows = board_.pio.windows();
  const std::uint64_t base = windows[source_.u8() % windows.size()].base;
  // Refusals are right answers.
  (void)board_.pio.move(base, source_.number(2));
}

void Run::push_input() {
  std::array<std::byte, 100> input;
  input.fill(std::byte{source_.u8()});
  board_.uart.with([&](Uart16550& uart) { uart.push_input(input); });
}

// A request (QEMU's docs/specs/fw_cfg: control, length, address, big-endian) somewhere in RAM.
void Run::read_fw_cfg_by_dma() {
  const Gpa at{source_.number(2)};
  std::array<std::byte, 16> request;
  const auto put = [&request](std::size_t offset, std::uint64_t value, std::size_t size) {
    for (std::size_t i = 0; i < size; ++i) {
      request[offset + i] = static_cast<std::byte>(value >> (8 * (size - 1 - i)));
    }
  };
  put(0, std::uint64_t{source_.u8()} << 16 | (source_.u8() & 0x3f), 4);
  put(4, source_.number(4), 4);
  put(8, source_.number(source_.u8() < 16 ? 8 : 2), 8);
  if (!board_.ram.write(at, request)) return;
  std::array<std::byte, 4> low;
  for (std::size_t i = 0; i < low.size(); ++i) {
    low[i] = static_cast<std::byte>(at.value >> (8 * (3 - i)));
  }
  board_.pio.write(pio_cache_, FwCfg::kDmaPort + 4, low);
}

void Run::drive_lines() {
  const std::uint8_t what = source_.u8();
  board_.outside[what % Wiring::kGsis].set_level((what & 0x20) != 0);
  if ((what & 0x40) != 0) {
    const std::uint8_t vector = source_.u8();
    board_.wiring.ioapic.with([&](Ioapic& ioapic) { ioapic.eoi(vector); });
  }
  if ((what & 0x1f) == 0x1f) {
    board_.hotplug.with([&](pci::Hotplug& hotplug) {
      hotplug.announce_added(1U + (what >> 5));
      hotplug.announce_leaving(24U + (what >> 5));
    });
  }
  if ((what & 0x80) != 0) {
    board_.wiring.pic.with([](Pic8259& pic) { (void)pic.acknowledge(); });
  }
}

// What a CPU does when it can take an interrupt; most handlers end it, too.
void Run::take_interrupt(VcpuId cpu) {
  const bool ends_it = source_.u8() % 4 != 0;
  const bool ext_int =
      board_.wiring.lapics.with([&](LapicBank& bank) { return bank.lapic(cpu).wants_ext_int(); });
  if (ext_int) board_.wiring.pic.with([](Pic8259& pic) { (void)pic.acknowledge(); });
  board_.wiring.lapics.with([&](LapicBank& bank) {
    Lapic& lapic = bank.lapic(cpu);
    if (ext_int) {
      lapic.ext_int_taken();
      ++outcome_.interrupts;
    } else if (lapic.has_interrupt()) {
      lapic.acknowledge();
      ++outcome_.interrupts;
      if (!ends_it) return;
      const std::array<std::byte, 4> zero{};
      if (lapic.x2apic()) {
        (void)lapic.write_msr(Lapic::kFirstMsr + Lapic::kEoi, 0);
      } else {
        lapic.write({.offset = Lapic::kEoi * 16, .address = 0, .vcpu = cpu}, zero);
      }
    }
  });
}

// What a CPU does with its local APIC but for the page.
void Run::drive_cpus() {
  const std::uint8_t what = source_.u8();
  const VcpuId cpu{what & 1U};
  if ((what >> 1 & 7) == 4) return take_interrupt(cpu);
  const std::uint32_t number = source_.u8();
  const std::uint64_t value = source_.number(8);
  board_.wiring.lapics.with([&](LapicBank& bank) {
    Lapic& lapic = bank.lapic(cpu);
    switch (what >> 1 & 7) {
      case 0:  // a value of its own, or a mode with the page at its usual place
        (void)lapic.set_base((number & 7) == 0   ? value
                             : (number & 8) != 0 ? Lapic::kDefaultBase | (value & 0xd00)
                                                 : Lapic::kDefaultBase | Lapic::kBaseEnable);
        break;
      case 1:
        (void)lapic.write_msr(Lapic::kFirstMsr + number % 0x48, value);
        break;
      case 2:
        (void)lapic.read_msr(Lapic::kFirstMsr + number);
        break;
      case 3:
        lapic.set_tsc_deadline(value, source_.number(8));
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
        lapic.hold_timer(board_.clock.now() + std::chrono::microseconds(number));
    }
  });
}

// From nanoseconds to a day and a half, a century in all.
void Run::advance() {
  constexpr std::chrono::hours kCentury{24 * 36'525};
  const auto by = static_cast<std::int64_t>((source_.number(2) & 0xffff) << (source_.u8() % 32));
  if (board_.clock.now() < kCentury) board_.clock.advance(std::chrono::nanoseconds(by));
}

void Run::out(std::uint16_t port, std::uint64_t value) {
  std::array<std::byte, 1> data{static_cast<std::byte>(value)};
  board_.pio.write(pio_cache_, port, data);
}

void Run::store(std::uint64_t address, std::uint64_t value) {
  std::array<std::byte, 4> data;
  store_le(data, value);
  board_.mmio.write(mmio_caches_[0], address, data);
}

// A pin with a vector of its own, any trigger and delivery mode, unmasked.
void Run::set_up_ioapic() {
  const std::uint64_t pin = source_.u8() % Ioapic::kPins;
  constexpr std::array<std::uint64_t, 4> kDestinations{0, 1, 2, 0xff};
  const std::uint64_t modes = source_.number(2) & 0x8f00;
  const std::uint64_t vector = 0x10 | source_.u8();
  store(Ioapic::kDefaultBase + Ioapic::kIoregsel, Ioapic::kRedirection + 2 * pin + 1);
  store(Ioapic::kDefaultBase + Ioapic::kIowin, kDestinations[source_.u8() % 4] << 24);
  store(Ioapic::kDefaultBase + Ioapic::kIoregsel, Ioapic::kRedirection + 2 * pin);
  store(Ioapic::kDefaultBase + Ioapic::kIowin, modes | vector);
}

// The boot CPU's, ready to take interrupts, with its timer running in any mode.
void Run::set_up_lapic() {
  const auto reg = [](Lapic::Register number) { return Lapic::kDefaultBase + number * 16; };
  board_.wiring.lapics.with([](LapicBank& bank) {
    (void)bank.lapic(VcpuId{0}).set_base(Lapic::kDefaultBase | Lapic::kBaseEnable);
  });
  store(reg(Lapic::kSvr), 0x1ff);
  store(reg(Lapic::kTpr), 0);
  store(reg(Lapic::kLvtLint0), (source_.u8() & 1) != 0 ? 0x700 : 0x8020U | source_.u8());
  store(reg(Lapic::kDivide), source_.u8() & 0xb);
  store(reg(Lapic::kLvtTimer), std::uint64_t{source_.u8() % 3U} << 17 | 0x20 | source_.u8());
  store(reg(Lapic::kInitialCount), source_.number(4));
}

void Run::set_up_timers() {
  const std::uint8_t mode = source_.u8() & 0xf;
  out(Pit8254::kPort + 3, 0x30U | mode);
  out(Pit8254::kPort, source_.u8());
  out(Pit8254::kPort, source_.u8());
  out(RtcCmos::kIndexPort, 0x0b);
  out(RtcCmos::kIndexPort + 1, source_.u8() & 0x76);
  const std::uint64_t timer = Hpet::kBase + 0x100 + 0x20 * (source_.u8() % Hpet::kComparators);
  const std::uint64_t route = Hpet::kFirstRoute + source_.u8() % Hpet::kRoutes;
  store(timer, route << 9 | (source_.u8() & 0x4a) | 4);
  store(timer + 8, source_.number(4));
  store(Hpet::kBase + 0x10, source_.u8() % 4 == 0 ? source_.u8() & 3 : 1);
}

// Chance alone seldom writes the registers of a chip in the order that makes it work.
void Run::set_up_a_chip() {
  switch (source_.u8() % 5) {
    case 0:
      return set_up_lapic();
    case 1:
      return set_up_timers();
    case 2:  // both 8259A: ICW1 to ICW4, no masks
      for (const std::uint16_t port : {Pic8259::kMasterPort, Pic8259::kSlavePort}) {
        out(port, 0x11);
        out(port + 1, source_.u8() & 0xf8);
        out(port + 1, port == Pic8259::kMasterPort ? 4 : 2);
        out(port + 1, 1U | (source_.u8() & 2));
        out(port + 1, 0);
      }
      return;
    default:
      return set_up_ioapic();
  }
}

// An event loop that calls a device when it asked to be called must not have to call it again.
template <typename D>
const char* Run::wake_one(const DeviceHandle<D>& device) {
  return device.with([this](D& d) -> const char* {
    const auto now = board_.clock.now();
    const auto due = d.next_event();
    if (!due || *due > now) return nullptr;
    ++outcome_.wakes;
    d.on_time();
    const auto next = d.next_event();
    return next && *next <= now ? "a device asks to be woken without end" : nullptr;
  });
}

const char* Run::wake() {
  for (const char* broken :
       {wake_one(board_.rtc), wake_one(board_.pm), wake_one(board_.pit), wake_one(board_.hpet)}) {
    if (broken != nullptr) return broken;
  }
  return board_.wiring.lapics.with([this](LapicBank& bank) -> const char* {
    for (std::uint32_t i = 0; i < bank.count(); ++i) {
      Lapic& lapic = bank.lapic(VcpuId{i});
      lapic.on_time();
      const auto next = lapic.next_event();
      if (next && *next <= board_.clock.now()) return "a local APIC asks to be woken without end";
    }
    return nullptr;
  });
}

// Who waits for an EOI is level-triggered; who is asserted, and could be heard, has been.
const char* Run::check_pins() const {
  return board_.wiring.ioapic.with([](const Ioapic& ioapic) -> const char* {
    for (std::uint32_t pin = 0; pin < Ioapic::kPins; ++pin) {
      const Ioapic::Route route = ioapic.route(pin);
      if (route.remote_irr && !route.level) return "an edge waits for its end";
      const bool asserted = (ioapic.state().asserted >> pin & 1) != 0;
      if (asserted && route.level && !route.masked && !route.remote_irr) {
        return "an asserted level is not delivered";
      }
    }
    return nullptr;
  });
}

const char* Run::step() {
  const std::uint8_t operation = source_.operation();
  const bool write = (operation & 0x80) != 0;
  switch (operation & 0x0f) {
    case 0:  // any port
      return access(board_.pio, pio_cache_, source_.number(2), write);
    case 1:
    case 2:
    case 3:
    case 4:
    case 5:
      return access_port(write);
    case 6:
    case 7:
      return access_apics(operation);
    case 8:
      return access_memory(operation);
    case 9:
      if (write) {
        read_fw_cfg_by_dma();
      } else {
        push_input();
      }
      return nullptr;
    case 10:
      advance();
      return nullptr;
    case 11:
      if ((operation & 0x60) != 0) {
        set_up_a_chip();
        return nullptr;
      }
      board_.output.set_writable(write);
      board_.uart.with([](Uart16550& uart) { uart.poke(); });
      // A machine that is asked for sleep sleeps, until something wakes it.
      board_.pm.with([write](AcpiPm& pm) {
        pm.fallen_asleep();
        if (write) pm.press_power_button();
        if (pm.wakes()) pm.wake_up();
      });
      return nullptr;
    case 12:
      move_a_window();
      return nullptr;
    case 13:
      hostile_restore();
      return nullptr;
    case 14:
      if (write) {
        drive_cpus();
      } else {
        drive_lines();
      }
      return nullptr;
    default:
      if (write) return save_and_restore();
      for (const DeviceRef& device : board_.all) device.with([](Device& d) { d.reset(); });
      return nullptr;
  }
}

OperationsOutcome Run::go(std::uint64_t most) {
  if (!board_.complete()) outcome_.broken = "the board's windows overlap";
  while (outcome_.broken == nullptr && outcome_.operations < most && !source_.empty()) {
    const std::uint64_t messages = board_.wiring.messages();
    ++outcome_.operations;
    const char* broken = step();
    board_.wiring.pass_on_eois();
    if (broken == nullptr) broken = wake();
    if (broken == nullptr && sound_) broken = check_pins();
    if (broken == nullptr && board_.wiring.messages() - messages > kMostMessages) {
      broken = "one operation sends too many interrupts";
    }
    outcome_.broken = broken;
  }
  outcome_.messages = board_.wiring.messages();
  return outcome_;
}

}  // namespace

OperationsOutcome run_device_operations(std::span<const std::uint8_t> program) {
  ByteOperations source(program);
  return Run(source).go(kMostOperations);
}

OperationsOutcome run_random_device_operations(std::uint32_t seed, std::uint64_t operations) {
  RandomOperations source(seed);
  return Run(source).go(operations);
}

}  // namespace vmm::test
