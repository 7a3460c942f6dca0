#include "vmm/x86/acpi.h"

#include <array>
#include <span>
#include <string_view>

#include "base/le.h"
#include "memory/guest_writer.h"
#include "vmm/x86/layout.h"

namespace vmm::x86 {
namespace {

constexpr std::string_view kOemId = "VMM   ";         // six bytes
constexpr std::string_view kOemTableId = "VMMTABLE";  // eight
constexpr std::string_view kCreatorId = "VMM ";
constexpr std::uint64_t kRsdpSize = 36;
constexpr std::uint64_t kHeaderSize = 36;
constexpr std::uint64_t kTableAlignment = 16;

// A table while it is built: fields in the order of the specification's drawings.
class Bytes {
 public:
  Bytes& u8(std::uint64_t value) { return put(value, 1); }
  Bytes& u16(std::uint64_t value) { return put(value, 2); }
  Bytes& u32(std::uint64_t value) { return put(value, 4); }
  Bytes& u64(std::uint64_t value) { return put(value, 8); }
  Bytes& text(std::string_view chars) {
    for (const char c : chars) u8(static_cast<std::uint8_t>(c));
    return *this;
  }
  Bytes& zeros(std::size_t count) {
    bytes_.resize(bytes_.size() + count);
    return *this;
  }
  Bytes& term(const aml::Term& term) {
    bytes_.insert(bytes_.end(), term.begin(), term.end());
    return *this;
  }
  std::size_t size() const { return bytes_.size(); }
  std::span<const std::byte> bytes() const { return bytes_; }

  // Sets the byte at `at` so that the first `size` bytes add up to zero.
  void set_checksum(std::size_t at, std::size_t size) {
    bytes_[at] = std::byte{0};
    unsigned sum = 0;
    for (std::size_t i = 0; i < size; ++i) sum += std::to_integer<unsigned>(bytes_[i]);
    bytes_[at] = static_cast<std::byte>(0x100 - (sum & 0xff));
  }

 private:
  Bytes& put(std::uint64_t value, std::size_t size) {
    std::array<std::byte, 8> le{};
    store_le(le, value);
    for (std::size_t i = 0; i < size; ++i) bytes_.push_back(le[i]);
    return *this;
  }
  std::vector<std::byte> bytes_;
};

// A system description table: the header that all share (ACPI 6.5, 5.2.6) before the body.
Bytes with_header(std::string_view signature, std::uint8_t revision, const Bytes& body) {
  Bytes table;
  table.text(signature).u32(kHeaderSize + body.size()).u8(revision).u8(0);
  table.text(kOemId).text(kOemTableId).u32(1).text(kCreatorId).u32(1);
  for (const std::byte byte : body.bytes()) table.u8(std::to_integer<std::uint8_t>(byte));
  table.set_checksum(9, table.size());
  return table;
}

// A generic address in I/O space (5.2.3.2); `access` is 1, 2 or 3 for one, two or four bytes.
void io_address(Bytes& table, std::uint16_t port, std::uint8_t bits, std::uint8_t access) {
  constexpr std::uint8_t kSystemIo = 1;
  table.u8(kSystemIo).u8(bits).u8(0).u8(access).u64(port);
}
constexpr std::size_t kAddressSize = 12;

// IAPC_BOOT_ARCH and the flags (5.2.9, tables 5.10 and 5.11).
std::uint16_t boot_flags(const AcpiConfig& config) {
  constexpr std::uint16_t kLegacyDevices = 1U << 0;
  constexpr std::uint16_t k8042 = 1U << 1;
  constexpr std::uint16_t kNoVga = 1U << 2;
  constexpr std::uint16_t kNoCmosRtc = 1U << 5;
  const bool legacy = !config.serial_ports.empty() || config.keyboard_controller;
  return static_cast<std::uint16_t>(kNoVga | (legacy ? kLegacyDevices : 0) |
                                    (config.keyboard_controller ? k8042 : 0) |
                                    (config.rtc ? 0 : kNoCmosRtc));
}

std::uint32_t feature_flags(const AcpiConfig& config) {
  constexpr std::uint32_t kWbinvd = 1U << 0;
  constexpr std::uint32_t kProcC1 = 1U << 2;
  constexpr std::uint32_t kNoFixedSleepButton = 1U << 5;
  constexpr std::uint32_t kTimer32 = 1U << 8;
  constexpr std::uint32_t kResetRegister = 1U << 10;
  // The power button and the clock's alarm are events of PM1: their bits say so by being 0.
  return kWbinvd | kProcC1 | kNoFixedSleepButton | kResetRegister |
         (config.pm_timer_is_32_bit ? kTimer32 : 0);
}

// 5.2.9, revision 6. Fields of zero say "not there": SMI command (so the machine is in ACPI mode),
// PM1b, PM2, GPE1, C2 and C3.
Bytes fadt(const AcpiConfig& config, Gpa facs, Gpa dsdt) {
  constexpr std::uint16_t kNoC2 = 101;   // a latency above 100 us: no such state
  constexpr std::uint16_t kNoC3 = 1001;  // above 1000 us
  Bytes body;
  body.u32(facs.value).u32(dsdt.value).u8(0).u8(0).u16(config.sci_irq);
  body.u32(0).u8(0).u8(0).u8(0).u8(0);  // SMI_CMD and its values
  body.u32(config.pm_event_port).u32(0).u32(config.pm_control_port).u32(0).u32(0);
  body.u32(config.pm_timer_port).u32(config.gpe_port).u32(0);
  body.u8(AcpiPmLayout::kEventLength).u8(AcpiPmLayout::kControlLength).u8(0);
  body.u8(AcpiPmLayout::kTimerLength).u8(AcpiPmLayout::kGpeLength).u8(0).u8(0).u8(0);
  body.u16(kNoC2).u16(kNoC3).u16(0).u16(0).u8(0).u8(0);
  body.u8(0).u8(0).u8(config.rtc ? config.rtc_century_index : 0);
  body.u16(boot_flags(config)).u8(0).u32(feature_flags(config));
  io_address(body, config.reset_port, 8, 1);
  body.u8(config.reset_value).u16(0).u8(5);  // ARM flags; minor revision 5 of 6
  // The FACS has one address, the 32-bit one; the DSDT must have the same in both fields.
  body.u64(0).u64(dsdt.value);
  io_address(body, config.pm_event_port, 32, 2);
  body.zeros(kAddressSize);
  io_address(body, config.pm_control_port, 16, 2);
  body.zeros(2 * kAddressSize);
  io_address(body, config.pm_timer_port, 32, 3);
  io_address(body, config.gpe_port, 8 * AcpiPmLayout::kGpeLength, 1);
  body.zeros(3 * kAddressSize);  // GPE1, sleep control and status
  body.u64(0);                   // hypervisor vendor
  return with_header("FACP", 6, body);
}

// 5.2.10. The guest writes here where it wants to wake up (waking.h); nothing has changed about the
// hardware meanwhile (signature 0), and there is no 64-bit way to wake up (flags 0).
Bytes facs() {
  constexpr std::size_t kSize = 64;
  Bytes table;
  table.text("FACS").u32(kSize).zeros(24).u8(2).zeros(kSize - 33);
  return table;
}

// 5.2.12: one entry a CPU, then how interrupts reach them.
Bytes madt(const AcpiConfig& config) {
  constexpr std::uint32_t kPcAtCompatible = 1;  // there are two 8259s as well
  constexpr std::uint32_t kEnabled = 1;
  constexpr std::uint32_t kFirstX2apicId = 255;  // does not fit the older entry
  constexpr std::uint16_t kConforms = 0;         // polarity and trigger are those of the bus
  constexpr std::uint16_t kActiveHighLevel = 0xd;
  constexpr std::uint16_t kActiveLowLevel = 0xf;
  Bytes body;
  body.u32(kLocalApic.base().value).u32(kPcAtCompatible);
  for (std::uint32_t id = 0; id < config.cpus; ++id) {
    if (id < kFirstX2apicId) {
      body.u8(0).u8(8).u8(id).u8(id).u32(kEnabled);
    } else {
      body.u8(9).u8(16).u16(0).u32(id).u32(kEnabled).u32(id);
    }
  }
  body.u8(1).u8(12).u8(config.io_apic_id).u8(0).u32(kIoApic.base().value).u32(0);
  // The timer's IRQ 0 arrives on pin 2, as on every PC since the first I/O APIC.
  body.u8(2).u8(10).u8(0).u8(0).u32(2).u16(kConforms);
  const bool low = config.sci_polarity == aml::Polarity::kActiveLow;
  body.u8(2).u8(10).u8(0).u8(config.sci_irq).u32(config.sci_irq);
  body.u16(low ? kActiveLowLevel : kActiveHighLevel);
  body.u8(4).u8(6).u8(0xff).u16(kConforms).u8(1);  // NMI on LINT1 of every CPU
  if (config.cpus > kFirstX2apicId) {
    body.u8(0xa).u8(12).u16(kConforms).u32(0xffff'ffff).u8(1).zeros(3);
  }
  return with_header("APIC", 5, body);
}

// IA-PC HPET Specification 1.0a, 3.2.4.
Bytes hpet() {
  constexpr std::uint8_t kSystemMemory = 0;
  constexpr std::uint16_t kMinimumTick = 2000;  // of Hpet::kPeriod: Hpet::Ports::min_interval
  Bytes body;
  body.u32(Hpet::kBlockId).u8(kSystemMemory).u8(64).u8(0).u8(0).u64(Hpet::kBase);
  body.u8(0).u16(kMinimumTick).u8(0);  // number; page protection: none
  return with_header("HPET", 1, body);
}

// PCI Firmware Specification 3.0, 4.1.2.
Bytes mcfg(const AcpiPciRoot& pci) {
  Bytes body;
  body.zeros(8).u64(pci.config.base().value).u16(0).u8(0).u8(0).zeros(4);
  return with_header("MCFG", 1, body);
}

Bytes rsdt(const std::vector<Gpa>& tables) {
  Bytes body;
  for (const Gpa table : tables) body.u32(table.value);
  return with_header("RSDT", 1, body);
}

Bytes xsdt(const std::vector<Gpa>& tables) {
  Bytes body;
  for (const Gpa table : tables) body.u64(table.value);
  return with_header("XSDT", 1, body);
}

// 5.2.5.3: the first 20 bytes have a checksum of their own, for readers of version 1.
Bytes rsdp(Gpa rsdt, Gpa xsdt) {
  Bytes table;
  table.text("RSD PTR ").u8(0).text(kOemId).u8(2).u32(rsdt.value);
  table.u32(kRsdpSize).u64(xsdt.value).u8(0).zeros(3);
  table.set_checksum(8, 20);
  table.set_checksum(32, kRsdpSize);
  return table;
}

}  // namespace

Result<Gpa> write_acpi_tables(const GuestMemory& memory, const AcpiConfig& config) {
  if (config.cpus == 0 || config.cpus > kMaxAcpiCpus) {
    return fail(ErrorCode::kBadConfig, "ACPI tables for {} CPUs: 1 to {} are possible", config.cpus,
                kMaxAcpiCpus);
  }
  GuestWriter writer(memory, kAcpiTables);
  GuestWriter nvs(memory, kAcpiNvs);
  // The RSDP comes first in memory and last in time: it points to what points to the rest.
  const Gpa rsdp_at = VMM_TRY(writer.fill(kRsdpSize, std::byte{0}));
  const auto put = [&](const Bytes& table) -> Result<Gpa> {
    VMM_TRY(writer.align(kTableAlignment));
    return writer.put(table.bytes());
  };
  const Gpa facs_at = VMM_TRY(nvs.put(facs().bytes()));
  const Gpa dsdt_at = VMM_TRY(put(with_header("DSDT", 2, Bytes().term(dsdt_body(config)))));
  std::vector<Gpa> tables;
  tables.push_back(VMM_TRY(put(fadt(config, facs_at, dsdt_at))));
  if (config.interrupt_controllers) tables.push_back(VMM_TRY(put(madt(config))));
  if (config.hpet) tables.push_back(VMM_TRY(put(hpet())));
  if (config.pci) tables.push_back(VMM_TRY(put(mcfg(*config.pci))));
  const Gpa rsdt_at = VMM_TRY(put(rsdt(tables)));
  const Gpa xsdt_at = VMM_TRY(put(xsdt(tables)));
  GuestWriter first(memory, fixed_range(rsdp_at.value, kRsdpSize));
  return first.put(rsdp(rsdt_at, xsdt_at).bytes());
}

}  // namespace vmm::x86
