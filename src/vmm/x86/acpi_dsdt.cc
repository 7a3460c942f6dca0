#include <fmt/format.h>

#include "vmm/x86/acpi.h"

namespace vmm::x86 {
namespace {

using aml::device;
using aml::eisa_id;
using aml::integer;
using aml::io_ports;
using aml::isa_irq;
using aml::name;
using aml::resource_template;
using aml::Term;
using aml::Terms;

// Present, enabled, shown, working (ACPI 6.5, 6.3.7).
constexpr std::uint64_t kStaWorking = 0xf;
constexpr std::uint64_t kStaPresent = 0xb;  // the same, and nothing to show

Term crs(const Terms& descriptors) { return name("_CRS", resource_template(descriptors)); }

Term serial_port(const AcpiSerialPort& serial, std::uint64_t uid) {
  return device(serial.name,
                {name("_HID", eisa_id("PNP0501")), name("_UID", integer(uid)),
                 name("_DDN", aml::string(serial.name)), name("_STA", integer(kStaWorking)),
                 crs({io_ports(serial.port, 8), isa_irq(serial.irq)})});
}

Term rtc() {
  return device("RTC", {name("_HID", eisa_id("PNP0B00")), crs({io_ports(0x70, 2), isa_irq(8)})});
}

Term keyboard() {
  return device("KBD", {name("_HID", eisa_id("PNP0303")), name("_STA", integer(kStaWorking)),
                        crs({io_ports(0x60, 1), io_ports(0x64, 1), isa_irq(1)})});
}

Term mouse() {
  return device("MOU", {name("_HID", eisa_id("PNP0F13")), name("_STA", integer(kStaWorking)),
                        crs({isa_irq(12)})});
}

// QEMU's specification of pvpanic names this ID.
Term pvpanic(std::uint16_t port) {
  return device("PEVT", {name("_HID", aml::string("QEMU0001")), name("_STA", integer(kStaWorking)),
                         crs({io_ports(port, 1)})});
}

// QEMU's specification of fw_cfg names this ID.
Term fw_cfg(std::uint16_t port) {
  return device("FWCF", {name("_HID", aml::string("QEMU0002")), name("_STA", integer(kStaWorking)),
                         crs({io_ports(port, 12)})});
}

// Microsoft's "Virtual Machine Generation ID" names the objects; this compatible ID is the one of
// its two that is an ID by ACPI's rules.
constexpr const char* kGenerationDevice = "VGEN";

Term generation_id(const AcpiGenerationId& id) {
  return device(kGenerationDevice,
                {name("_HID", aml::string("VMMV0001")), name("_CID", aml::string("VMGENCTR")),
                 name("_DDN", aml::string("VM_Gen_Counter")), name("_STA", integer(kStaPresent)),
                 name("ADDR", aml::package({integer(id.address.value & 0xffff'ffff),
                                            integer(id.address.value >> 32)}))});
}

Term generation_event(const AcpiGenerationId& id) {
  constexpr std::uint64_t kNewId = 0x80;
  return aml::scope("\\_GPE", {aml::method(fmt::format("_E{:02X}", id.gpe), 0,
                                           {aml::notify("\\_SB.VGEN", kNewId)})});
}

std::uint32_t low32(Gpa address) { return static_cast<std::uint32_t>(address.value); }

// The operating system says here whether it uses the PIC (0) or I/O APICs (1): 5.8.1.
constexpr const char* kPicMode = "PICM";

Term pic_mode() {
  return aml::join({name(kPicMode, integer(0)),
                    aml::method("_PIC", 1, {aml::store(aml::argument(0), aml::path(kPicMode))})});
}

// Mappings of a _PRT (6.2.13): any function of that device, INTA#, no link device, where it leads.
Term routes(const AcpiPciRoot& pci, std::uint8_t AcpiPciInterrupt::*to) {
  constexpr std::uint64_t kAnyFunction = 0xffff;
  Terms all;
  for (const AcpiPciInterrupt& interrupt : pci.interrupts) {
    all.push_back(aml::package({integer(std::uint64_t{interrupt.device} << 16 | kAnyFunction),
                                integer(0), integer(0), integer(interrupt.*to)}));
  }
  return aml::package(all);
}

Term interrupt_routing(const AcpiPciRoot& pci) {
  return aml::join(
      {name("APRT", routes(pci, &AcpiPciInterrupt::gsi)),
       name("PPRT", routes(pci, &AcpiPciInterrupt::isa_irq)),
       aml::method("_PRT", 0,
                   {aml::if_true(aml::path(kPicMode), {aml::return_value(aml::path("APRT"))}),
                    aml::return_value(aml::path("PPRT"))})});
}

// PCI Firmware Specification 3.0, 4.5.1: the operating system says what it would like to control,
// and is told what it may. There is no firmware that uses the PCI Express capabilities, so it may
// have these; hot-plugging, power management events, error reporting and the like are not there.
Term control_of_features() {
  constexpr const char* kHostBridge = "33DB4D5B-1FF7-401C-9657-7441C03DD766";
  constexpr std::uint64_t kRevision = 1;
  constexpr std::uint64_t kCapabilityStructure = 1U << 4;
  constexpr std::uint64_t kUnknownUuid = 1U << 2, kUnknownRevision = 1U << 3, kMasked = 1U << 4;
  // In the buffer: what went wrong; what the operating system supports; what it wants.
  constexpr std::uint64_t kStatusAt = 0, kControlAt = 8;
  const aml::Term capabilities = aml::argument(3);
  const aml::Term status = aml::path("CDW1"), control = aml::path("CDW3");
  const aml::Term granted = aml::local(0);
  const auto report = [&](const Term& condition, std::uint64_t bit) {
    return aml::if_true(condition, {aml::store(aml::bit_or(status, integer(bit)), status)});
  };
  return aml::method(
      "_OSC", 4,
      {aml::dword_field(capabilities, kStatusAt, "CDW1"),
       aml::if_true(aml::no(aml::equal(aml::argument(0), aml::uuid(kHostBridge))),
                    {aml::store(aml::bit_or(status, integer(kUnknownUuid)), status),
                     aml::return_value(capabilities)}),
       aml::dword_field(capabilities, kControlAt, "CDW3"),
       aml::store(aml::bit_and(control, integer(kCapabilityStructure)), granted),
       report(aml::no(aml::equal(aml::argument(1), integer(kRevision))), kUnknownRevision),
       report(aml::no(aml::equal(control, granted)), kMasked), aml::store(granted, control),
       aml::return_value(capabilities)},
      aml::Serialize::kYes);
}

// --- Slots of bus 0

constexpr std::uint64_t kDeviceCheck = 1, kEjectRequest = 3;  // ACPI 6.5, table 5.6

std::string slot_name(unsigned slot) { return fmt::format("S{:02X}", slot); }

// fn(number) for each slot that there is.
template <typename Fn>
void for_each_slot(const AcpiPciHotplug& hotplug, Fn&& fn) {
  for (unsigned slot = 1; slot < pci::Hotplug::kSlots; ++slot) {
    if ((hotplug.slots >> slot & 1) != 0) fn(slot);
  }
}

constexpr const char* kAddedRegister = "PCIU";
constexpr const char* kLeavingRegister = "PCID";
constexpr const char* kEjectRegister = "PCEJ";

// For the host bridge's scope: the registers, and a device for each slot, whether anything is in it
// or not. To eject is to say so to the register (6.3.3).
Term slots(const AcpiPciHotplug& hotplug) {
  Terms terms{aml::port_registers("PHPR", hotplug.port,
                                  {kAddedRegister, kLeavingRegister, kEjectRegister})};
  for_each_slot(hotplug, [&](unsigned slot) {
    terms.push_back(device(
        slot_name(slot),
        {name("_SUN", integer(slot)), name("_ADR", integer(std::uint64_t{slot} << 16)),
         aml::method("_EJ0", 1,
                     {aml::store(integer(std::uint64_t{1} << slot), aml::path(kEjectRegister))})}));
  });
  return aml::join(terms);
}

// The event is a level for as long as the registers have bits (5.6.4.1.2): what becomes due while
// this runs makes it run again. Reading clears, so each is read once.
Term slot_events(const AcpiPciHotplug& hotplug) {
  const std::string root = "\\_SB.PCI0.";
  const Term added = aml::local(0), leaving = aml::local(1);
  Terms body{aml::store(aml::path(root + kAddedRegister), added),
             aml::store(aml::path(root + kLeavingRegister), leaving)};
  for_each_slot(hotplug, [&](unsigned slot) {
    const Term bit = integer(std::uint64_t{1} << slot);
    const std::string where = root + slot_name(slot);
    body.push_back(aml::if_true(aml::bit_and(added, bit), {aml::notify(where, kDeviceCheck)}));
    body.push_back(aml::if_true(aml::bit_and(leaving, bit), {aml::notify(where, kEjectRequest)}));
  });
  return aml::scope("\\_GPE", {aml::method(fmt::format("_L{:02X}", hotplug.gpe), 0, body)});
}

// The ports are a resource of something, so that no BAR or driver gets them.
Term slot_resources(const AcpiPciHotplug& hotplug) {
  return device(
      "PHPC",
      {name("_HID", eisa_id("PNP0A06")), name("_UID", aml::string("PCI hot-plug")),
       name("_STA", integer(kStaPresent)), crs({io_ports(hotplug.port, pci::Hotplug::kSize)})});
}

// PCI Firmware Specification 3.0, 4.1 and 4.3: what goes through the bridge, and its own ports. The
// memory-mapped configuration space is a resource of the board (4.1.2, note 2).
Term pci_root(const AcpiPciRoot& pci) {
  constexpr std::uint16_t kConfigPorts = 0xcf8;
  constexpr std::uint8_t kCount = 8;
  const Term windows =
      crs({aml::bus_numbers(0, 0), io_ports(kConfigPorts, kCount),
           aml::io_window(0, kConfigPorts - 1), aml::io_window(kConfigPorts + kCount, 0xffff),
           aml::memory_window(low32(pci.memory.base()), low32(pci.memory.end()) - 1)});
  Terms terms{name("_HID", eisa_id("PNP0A08")),
              name("_CID", eisa_id("PNP0A03")),
              name("_UID", integer(0)),
              name("_SEG", integer(0)),
              name("_BBN", integer(0)),
              windows,
              control_of_features()};
  if (!pci.interrupts.empty()) terms.push_back(interrupt_routing(pci));
  if (pci.hotplug) terms.push_back(slots(*pci.hotplug));
  return device("PCI0", terms);
}

// Values for SLP_TYP of PM1a and PM1b; the other two are reserved (ACPI 6.5, 7.4.2).
Term sleep_state(const char* path, std::uint8_t type) {
  return name(path, aml::package({integer(type), integer(type), integer(0), integer(0)}));
}

Term board_resources(const AcpiPciRoot& pci) {
  return device("MBRD", {name("_HID", eisa_id("PNP0C02")), name("_UID", integer(0)),
                         crs({aml::memory32(low32(pci.config.base()),
                                            static_cast<std::uint32_t>(pci.config.size()))})});
}

}  // namespace

Term dsdt_body(const AcpiConfig& config) {
  Terms devices;
  for (const AcpiSerialPort& serial : config.serial_ports) {
    devices.push_back(serial_port(serial, devices.size()));
  }
  if (config.rtc) devices.push_back(rtc());
  if (config.keyboard_controller) devices.push_back(keyboard());
  if (config.keyboard_controller && config.aux_port) devices.push_back(mouse());
  if (config.pvpanic_port) devices.push_back(pvpanic(*config.pvpanic_port));
  if (config.fw_cfg_port) devices.push_back(fw_cfg(*config.fw_cfg_port));
  if (config.pci) {
    devices.push_back(pci_root(*config.pci));
    devices.push_back(board_resources(*config.pci));
    if (config.pci->hotplug) devices.push_back(slot_resources(*config.pci->hotplug));
  }
  if (config.generation_id) devices.push_back(generation_id(*config.generation_id));
  devices.insert(devices.end(), config.devices.begin(), config.devices.end());

  Terms terms{sleep_state("\\_S3", config.s3_sleep_type),
              sleep_state("\\_S5", config.s5_sleep_type)};
  if (config.pci) terms.push_back(pic_mode());
  terms.push_back(aml::scope("\\_SB", devices));
  if (config.pci && config.pci->hotplug) terms.push_back(slot_events(*config.pci->hotplug));
  if (config.generation_id) terms.push_back(generation_event(*config.generation_id));
  return aml::join(terms);
}

}  // namespace vmm::x86
