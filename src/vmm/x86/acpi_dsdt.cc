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
  devices.insert(devices.end(), config.devices.begin(), config.devices.end());

  // Values for SLP_TYP of PM1a and PM1b; the other two are reserved (ACPI 6.5, 7.4.2).
  const Term s5 = integer(config.s5_sleep_type);
  return aml::join({name("\\_S5", aml::package({s5, s5, integer(0), integer(0)})),
                    aml::scope("\\_SB", devices)});
}

}  // namespace vmm::x86
