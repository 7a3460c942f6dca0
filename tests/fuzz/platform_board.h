// All platform devices of a PC, wired to each other as in a machine, with time that is moved by
// hand: what the fuzzer and the random runs work on.
#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <memory>
#include <vector>

#include "devices/acpi_pm.h"
#include "devices/bus.h"
#include "devices/capture_sink.h"
#include "devices/debug_exit.h"
#include "devices/fw_cfg.h"
#include "devices/hpet.h"
#include "devices/i8042.h"
#include "devices/ioapic.h"
#include "devices/irq_gate.h"
#include "devices/lapic_bank.h"
#include "devices/pci/host_bridge.h"
#include "devices/pci/hotplug.h"
#include "devices/pic8259.h"
#include "devices/pit8254.h"
#include "devices/port92.h"
#include "devices/post_code.h"
#include "devices/pvpanic.h"
#include "devices/rtc_cmos.h"
#include "devices/test_device.h"
#include "devices/uart16550.h"
#include "memory/guest_memory.h"
#include "tests/support/fakes/manual_clock.h"

namespace vmm::test {

class NullEvents final : public MachineEvents {
 public:
  void request(GuestRequest, std::uint32_t) override {}
};

// A bounded sink that falls behind on demand.
class SlowOutput final : public ByteSink {
 public:
  void write(std::span<const std::byte> bytes) override { kept_.write(bytes); }
  bool writable() const noexcept override { return writable_; }
  void set_writable(bool writable) { writable_ = writable; }

 private:
  CaptureSink kept_{4096};
  bool writable_ = true;
};

// Interrupt lines that share inputs, the two chips behind them, and the way to the local APICs and
// back.
class Wiring final : public MsiSink {
 public:
  static constexpr std::uint32_t kGsis = Ioapic::kPins;
  static constexpr std::uint32_t kCpus = 2;

  explicit Wiring(const Clock& clock);
  Wiring(const Wiring&) = delete;
  Wiring& operator=(const Wiring&) = delete;

  // A new source on this GSI.
  IrqLine line(std::uint32_t gsi);
  // What each source says now.
  std::vector<bool> levels() const;
  void send(std::uint64_t address, std::uint32_t data) override;
  // EOIs that local APICs have broadcast reach the I/O APIC.
  void pass_on_eois();
  std::uint64_t messages() const { return messages_; }

  DeviceHandle<LapicBank> lapics;
  DeviceHandle<Pic8259> pic;
  DeviceHandle<Ioapic> ioapic;

 private:
  struct Input {
    std::uint32_t gsi;
    std::uint32_t asserted = 0;  // how many sources
  };
  struct Source final : IrqPin {
    Source(Wiring& all, Input& mine) : wiring(all), input(mine) {}
    void set_level(bool asserted) override;
    Wiring& wiring;
    Input& input;
    bool level = false;
  };
  struct Intr final : IrqPin {
    explicit Intr(Wiring& all) : wiring(all) {}
    void set_level(bool asserted) override;
    Wiring& wiring;
  };
  void set_gsi(std::uint32_t gsi, bool asserted);

  Intr intr_{*this};
  std::array<Input, kGsis> inputs_;
  std::vector<std::unique_ptr<Source>> sources_;
  std::bitset<256> ended_;
  std::uint64_t messages_ = 0;
};

class PlatformBoard {
 public:
  PlatformBoard();

  // Whether every device has its windows.
  bool complete() const { return complete_; }

  ManualClock clock;
  NullEvents events;
  SlowOutput output;
  Wiring wiring{clock};
  std::array<IrqLine, Wiring::kGsis> outside;  // sources that are no device of ours
  Bus pio{BusKind::kPio};
  Bus mmio{BusKind::kMmio};
  std::vector<DeviceRef> all;
  GuestMemory ram;  // 64 KiB, for what a device reads and writes in memory
  IrqGate pit_gate{wiring.line(Pit8254::kIrq)};
  IrqGate rtc_gate{wiring.line(RtcCmos::kIrq)};

  DeviceHandle<Uart16550> uart;
  DeviceHandle<I8042> i8042;
  struct Alarm final : IrqPin {
    explicit Alarm(PlatformBoard& all) : board(all) {}
    void set_level(bool asserted) override;
    PlatformBoard& board;
  } alarm{*this};
  DeviceHandle<RtcCmos> rtc;
  DeviceHandle<AcpiPm> pm;
  DeviceHandle<Pit8254> pit;
  DeviceHandle<Hpet> hpet;
  DeviceHandle<DebugExit> debug_exit;
  DeviceHandle<Port92> port92;
  DeviceHandle<pci::HostBridge> pci;
  struct HotplugEvent final : IrqPin {
    explicit HotplugEvent(PlatformBoard& all) : board(all) {}
    void set_level(bool asserted) override;
    PlatformBoard& board;
  } hotplug_event{*this};
  std::uint64_t ejections = 0;
  DeviceHandle<pci::Hotplug> hotplug;
  DeviceHandle<FwCfg> fw_cfg;
  DeviceHandle<TestDevice> test_device;
  DeviceHandle<Pvpanic> panic;
  DeviceHandle<PostCode> post;

 private:
  void place(Bus& bus, const DeviceRef& device, const Window& window);
  void place_ports();
  void place_memory();

  bool complete_ = true;
};

}  // namespace vmm::test
