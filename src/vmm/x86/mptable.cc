#include "vmm/x86/mptable.h"

#include <array>
#include <cstddef>
#include <numeric>
#include <span>
#include <type_traits>
#include <vector>

#include "base/le.h"
#include "memory/guest_writer.h"
#include "vmm/x86/layout.h"

namespace vmm::x86 {
namespace {

constexpr std::uint32_t kMaxCpus = 255;
constexpr std::uint8_t kSpecRevision = 4;
constexpr std::uint8_t kIsaBus = 0;
constexpr std::uint8_t kEverybody = 0xff;  // a destination: all local APICs

// Wire structures, in the order of section 4's drawings; all fields have alignment 1.

struct FloatingPointer {
  std::array<char, 4> signature = {'_', 'M', 'P', '_'};
  Le32 table;
  std::uint8_t paragraphs = 1;
  std::uint8_t revision = kSpecRevision;
  std::uint8_t checksum = 0;
  std::array<std::uint8_t, 5> features{};  // a table is there, no IMCR
};
static_assert(sizeof(FloatingPointer) == 16);

struct TableHeader {
  std::array<char, 4> signature = {'P', 'C', 'M', 'P'};
  Le16 length;
  std::uint8_t revision = kSpecRevision;
  std::uint8_t checksum = 0;
  std::array<char, 8> oem_id = {'V', 'M', 'M', ' ', ' ', ' ', ' ', ' '};
  std::array<char, 12> product_id = {'V', 'M', 'M', ' ', ' ', ' ', ' ', ' ', ' ', ' ', ' ', ' '};
  Le32 oem_table;
  Le16 oem_size;
  Le16 entries;
  Le32 local_apic;
  Le16 extended_length;
  std::uint8_t extended_checksum = 0;
  std::uint8_t reserved = 0;
};
static_assert(sizeof(TableHeader) == 44);

struct ProcessorEntry {
  std::uint8_t type = 0;
  std::uint8_t apic_id = 0;
  std::uint8_t apic_version = 0x14;
  std::uint8_t flags = 0;
  Le32 signature;
  Le32 features;
  std::array<std::uint8_t, 8> reserved{};
};
static_assert(sizeof(ProcessorEntry) == 20);

struct BusEntry {
  std::uint8_t type = 1;
  std::uint8_t id = kIsaBus;
  std::array<char, 6> name = {'I', 'S', 'A', ' ', ' ', ' '};
};
static_assert(sizeof(BusEntry) == 8);

struct IoApicEntry {
  std::uint8_t type = 2;
  std::uint8_t id = 0;
  std::uint8_t version = 0x11;
  std::uint8_t flags = 1;  // usable
  Le32 address = static_cast<std::uint32_t>(kIoApic.base().value);
};
static_assert(sizeof(IoApicEntry) == 8);

enum class InterruptType : std::uint8_t { kInt = 0, kNmi = 1, kExtInt = 3 };

// Types 3 (to an I/O APIC's pin) and 4 (to a local APIC's LINT pin).
struct InterruptEntry {
  std::uint8_t type = 3;
  InterruptType interrupt = InterruptType::kInt;
  Le16 flags;  // 0: as the bus has it, which for ISA is edge, active high
  std::uint8_t source_bus = kIsaBus;
  std::uint8_t source_irq = 0;
  std::uint8_t destination = 0;
  std::uint8_t pin = 0;
};
static_assert(sizeof(InterruptEntry) == 8);

constexpr std::uint16_t kActiveHighLevel = 0x0d;

std::uint8_t checksum_of(std::span<const std::byte> bytes) {
  const unsigned sum = std::accumulate(
      bytes.begin(), bytes.end(), 0U,
      [](unsigned total, std::byte byte) { return total + std::to_integer<unsigned>(byte); });
  return static_cast<std::uint8_t>(0x100 - (sum & 0xff));
}

class Entries {
 public:
  template <typename Entry>
  void add(const Entry& entry) {
    static_assert(std::is_trivially_copyable_v<Entry>);
    const auto bytes = std::as_bytes(std::span(&entry, 1));
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    ++count_;
  }
  std::uint16_t count() const { return count_; }
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
  std::uint16_t count_ = 0;
};

void add_processors(Entries& entries, const MpConfig& config) {
  constexpr std::uint8_t kEnabled = 1;
  constexpr std::uint8_t kBootProcessor = 2;
  for (std::uint32_t id = 0; id < config.cpus; ++id) {
    ProcessorEntry entry;
    entry.apic_id = static_cast<std::uint8_t>(id);
    entry.flags = id == 0 ? kEnabled | kBootProcessor : kEnabled;
    entry.signature = config.cpu_signature;
    entry.features = config.cpu_features;
    entries.add(entry);
  }
}

void add_interrupts(Entries& entries, const MpConfig& config) {
  InterruptEntry pic;  // the 8259s' output
  pic.interrupt = InterruptType::kExtInt;
  pic.destination = config.io_apic_id;
  entries.add(pic);
  for (std::uint8_t irq = 0; irq < 16; ++irq) {
    if (irq == 2) continue;  // the cascade: no device can raise it
    InterruptEntry entry;
    entry.flags = irq == config.sci_irq ? kActiveHighLevel : std::uint16_t{0};
    entry.source_irq = irq;
    entry.destination = config.io_apic_id;
    entry.pin = irq == 0 ? std::uint8_t{2} : irq;  // the timer, as the MADT's override says
    entries.add(entry);
  }
  for (const InterruptType lint : {InterruptType::kExtInt, InterruptType::kNmi}) {
    InterruptEntry entry;
    entry.type = 4;
    entry.interrupt = lint;
    entry.destination = kEverybody;
    entry.pin = lint == InterruptType::kExtInt ? 0 : 1;
    entries.add(entry);
  }
}

}  // namespace

Result<Gpa> write_mp_table(const GuestMemory& memory, const MpConfig& config) {
  if (config.cpus == 0 || config.cpus > kMaxCpus) {
    return fail(ErrorCode::kBadConfig, "MP table for {} CPUs: 1 to {} are possible", config.cpus,
                kMaxCpus);
  }
  Entries entries;
  add_processors(entries, config);
  entries.add(BusEntry{});
  IoApicEntry io_apic;
  io_apic.id = config.io_apic_id;
  entries.add(io_apic);
  add_interrupts(entries, config);

  TableHeader header;
  header.length = static_cast<std::uint16_t>(sizeof(TableHeader) + entries.bytes().size());
  header.entries = entries.count();
  header.local_apic = static_cast<std::uint32_t>(kLocalApic.base().value);
  const std::uint8_t head_sum = checksum_of(std::as_bytes(std::span(&header, 1)));
  header.checksum = static_cast<std::uint8_t>(head_sum + checksum_of(entries.bytes()));

  FloatingPointer pointer;
  pointer.table = static_cast<std::uint32_t>(kMpTable.base().value + sizeof(FloatingPointer));
  pointer.checksum = checksum_of(std::as_bytes(std::span(&pointer, 1)));

  GuestWriter writer(memory, kMpTable);
  const Gpa at = VMM_TRY(writer.put_value(pointer));
  VMM_TRY(writer.put_value(header));
  VMM_TRY(writer.put(entries.bytes()));
  return at;
}

Result<void> write_bios_data(const GuestMemory& memory) {
  const auto segment = static_cast<std::uint16_t>(kEbda.base().value >> 4);
  const auto base_kib = static_cast<std::uint16_t>(kEbda.base().value / KiB(1));
  VMM_TRY(memory.write(kBdaEbdaSegment, Le16(segment)));
  VMM_TRY(memory.write(kBdaBaseMemoryKib, Le16(base_kib)));
  return memory.write(kEbda.base(), static_cast<std::uint8_t>(kEbda.size() / KiB(1)));
}

}  // namespace vmm::x86
