// The ACPI tables: what an operating system reads to find CPUs, interrupt controllers, power
// management and the devices that no bus enumerates.
//
// RSDP, RSDT, XSDT, FADT, FACS, MADT, MCFG, HPET, DSDT (ACPI Specification 6.5, chapter 5). Not a
// hardware-reduced platform: PM1a, PM timer and SCI are those of devices/acpi_pm.h, ACPI mode is on
// from the start, the reset register is a port, S3 and S5 are the sleep states.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "devices/acpi_pm.h"
#include "devices/hpet.h"
#include "devices/pci/hotplug.h"
#include "devices/pvpanic.h"
#include "devices/reset_control.h"
#include "devices/rtc_cmos.h"
#include "memory/guest_memory.h"
#include "vmm/x86/aml.h"

namespace vmm::x86 {

// A 16550A as the tables name it.
struct AcpiSerialPort {
  std::string name = "COM1";  // an ACPI name: at most four capitals and digits
  std::uint16_t port = 0x3f8;
  std::uint8_t irq = 4;
};

// Where INTA# of a device on bus 0 leads: an input of the I/O APIC, and an ISA interrupt for who
// uses the PIC.
struct AcpiPciInterrupt {
  std::uint8_t device = 0;
  std::uint8_t gsi = 0;
  std::uint8_t isa_irq = 0;
};

// Functions of bus 0 that come and go: devices/pci/hotplug.h at these ports.
struct AcpiPciHotplug {
  std::uint16_t port = pci::Hotplug::kPort;
  std::uint8_t gpe = pci::Hotplug::kGpe;
  std::uint32_t slots = 0;  // a bit for each device number that may be plugged in or out
};

// Where the guest finds a number that is another one in each copy of the machine, and the event
// that tells it of a new one (vmm/generation_id.h).
struct AcpiGenerationId {
  Gpa address{};
  std::uint8_t gpe = 0;
};

// A PCI host bridge with bus 0.
struct AcpiPciRoot {
  GpaRange config;  // memory-mapped configuration space of bus 0
  GpaRange memory;  // for the BARs of what is behind it; below 4 GiB
  std::vector<AcpiPciInterrupt> interrupts = {};
  std::optional<AcpiPciHotplug> hotplug = {};
};

struct AcpiConfig {
  std::uint32_t cpus = 1;  // APIC IDs 0 to cpus - 1; at most kMaxAcpiCpus
  // Local APICs and an I/O APIC with 24 pins from GSI 0; without them there is no MADT.
  bool interrupt_controllers = true;
  std::uint8_t io_apic_id = 0;
  bool hpet = false;  // at Hpet::kBase

  // Numbers that a device has too default to its own, so that the two cannot disagree.
  std::uint16_t pm_event_port = AcpiPmLayout::kEventBlock;
  std::uint16_t pm_control_port = AcpiPmLayout::kControlBlock;
  std::uint16_t pm_timer_port = AcpiPmLayout::kTimerBlock;
  std::uint16_t gpe_port = AcpiPmLayout::kGpeBlock;
  bool pm_timer_is_32_bit = true;
  std::uint8_t sci_irq = AcpiPmLayout::kSciIrq;  // level
  aml::Polarity sci_polarity = aml::Polarity::kActiveHigh;
  std::uint8_t s3_sleep_type = AcpiPmLayout::kSlpTypS3;
  std::uint8_t s5_sleep_type = AcpiPmLayout::kSlpTypS5;
  std::uint16_t reset_port = ResetControl::kPort;
  std::uint8_t reset_value = ResetControl::kResetValue;

  // Devices of the DSDT. What is not there is not named, and the FADT's boot flags say so.
  std::vector<AcpiSerialPort> serial_ports = {AcpiSerialPort{}};
  bool rtc = true;                                     // ports 0x70 and 0x71, IRQ 8
  std::uint8_t rtc_century_index = RtcCmos::kCentury;  // CMOS byte with the century; 0 for none
  bool keyboard_controller = true;                     // i8042: ports 0x60 and 0x64, IRQ 1
  bool aux_port = false;                               // its mouse, IRQ 12
  std::optional<std::uint16_t> pvpanic_port = Pvpanic::kPort;
  std::optional<std::uint16_t> fw_cfg_port = {};  // the first of twelve
  std::optional<AcpiPciRoot> pci = {};
  std::optional<AcpiGenerationId> generation_id = {};
  // More devices for \_SB: each a whole term, most often an aml::device.
  aml::Terms devices = {};
};

inline constexpr std::uint32_t kMaxAcpiCpus = 1024;

// Writes all tables to kAcpiTables and kAcpiNvs and returns the RSDP's address, 0xe0000. Errors:
// kBadConfig for no or too many CPUs; kOutOfRange when the tables do not fit, or there is no RAM.
Result<Gpa> write_acpi_tables(const GuestMemory& memory, const AcpiConfig& config);

// The DSDT's content after its header: the sleep states and the devices.
aml::Term dsdt_body(const AcpiConfig& config);

}  // namespace vmm::x86
