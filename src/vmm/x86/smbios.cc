#include "vmm/x86/smbios.h"

#include <algorithm>
#include <initializer_list>
#include <string_view>
#include <vector>

#include "base/le.h"
#include "base/size.h"
#include "memory/guest_writer.h"
#include "vmm/x86/layout.h"

namespace vmm::x86 {
namespace {

constexpr std::string_view kMaker = "vmm";
constexpr std::string_view kProduct = "Virtual machine";
constexpr std::string_view kVersion = "1";
constexpr std::string_view kBiosDate = "01/01/2024";
constexpr std::size_t kEntry2Size = 31;
constexpr std::size_t kEntry3Size = 24;
constexpr std::size_t kEntryArea = 64;  // both, each at a multiple of 16

enum Type : std::uint8_t {
  kBios = 0,
  kSystem = 1,
  kChassis = 3,
  kProcessor = 4,
  kMemoryArray = 16,
  kMemoryDevice = 17,
  kMappedArray = 19,
  kBootStatus = 32,
  kEnd = 127,
};

using Bytes = std::vector<std::byte>;

void append(Bytes& bytes, std::uint64_t value, std::size_t size) {
  bytes.resize(bytes.size() + size);
  store_le(std::span(bytes).last(size), value);
}

// Structures one after the other; each has a handle, by which others name it.
class Table {
 public:
  static constexpr std::uint16_t kNoHandle = 0xfffe;

  // Begins a structure; fields and strings of it follow. Its handle.
  std::uint16_t begin(Type type) {
    finish();
    start_ = bytes_.size();
    append(bytes_, type, 1);
    append(bytes_, 0, 1);  // length, when it is known
    append(bytes_, next_handle_, 2);
    return next_handle_++;
  }
  Table& u8(std::uint64_t value) { return put(value, 1); }
  Table& u16(std::uint64_t value) { return put(value, 2); }
  Table& u32(std::uint64_t value) { return put(value, 4); }
  Table& u64(std::uint64_t value) { return put(value, 8); }
  // The number of a string of this structure; 0 for none.
  Table& text(std::string_view value) {
    if (!value.empty()) strings_.push_back(value);
    return u8(value.empty() ? 0 : strings_.size());
  }
  Table& zeroes(std::size_t count) {
    bytes_.resize(bytes_.size() + count);
    return *this;
  }

  // All of it, and what the entry points say of it.
  const Bytes& take() {
    finish();
    return bytes_;
  }
  std::uint16_t count() const { return next_handle_; }
  std::size_t largest() const { return largest_; }

 private:
  Table& put(std::uint64_t value, std::size_t size) {
    append(bytes_, value, size);
    return *this;
  }
  // Strings follow the fields, each with a zero, and one more zero after all; two when there is
  // none (6.1.3).
  void finish() {
    if (bytes_.empty()) return;
    bytes_[start_ + 1] = static_cast<std::byte>(bytes_.size() - start_);
    for (const std::string_view text : strings_) {
      for (const char c : text) append(bytes_, static_cast<std::uint8_t>(c), 1);
      append(bytes_, 0, 1);
    }
    append(bytes_, 0, strings_.empty() ? 2 : 1);
    largest_ = std::max(largest_, bytes_.size() - start_);
    strings_.clear();
    start_ = bytes_.size();
  }

  Bytes bytes_;
  std::vector<std::string_view> strings_;
  std::size_t start_ = 0;
  std::size_t largest_ = 0;
  std::uint16_t next_handle_ = 0;
};

// 7.1
void add_bios(Table& table) {
  constexpr std::uint64_t kNotSupported = 1U << 3;  // "characteristics are not supported"
  constexpr std::uint8_t kVirtualMachine = 1U << 4;
  table.begin(kBios);
  table.text(kMaker).text(kVersion).u16(0).text(kBiosDate).u8(0);
  table.u64(kNotSupported).u8(0).u8(kVirtualMachine).u8(0xff).u8(0xff).u8(0xff).u8(0xff);
}

// 7.2. Since version 2.6 the first three fields of the UUID are little-endian.
void add_system(Table& table, const Uuid& uuid) {
  constexpr std::uint8_t kPowerSwitch = 6;
  table.begin(kSystem);
  table.text(kMaker).text(kProduct).text(kVersion).text("");
  for (const std::size_t i :
       {3U, 2U, 1U, 0U, 5U, 4U, 7U, 6U, 8U, 9U, 10U, 11U, 12U, 13U, 14U, 15U}) {
    table.u8(uuid[i]);
  }
  table.u8(kPowerSwitch).text("").text("");
}

// 7.4
void add_chassis(Table& table) {
  constexpr std::uint8_t kOther = 1, kSafe = 3, kUnknown = 2;
  table.begin(kChassis);
  table.text(kMaker).u8(kOther).text("").text("").text("");
  table.u8(kSafe).u8(kSafe).u8(kSafe).u8(kUnknown).u32(0).u8(0).u8(0).u8(0).u8(0).text("");
}

// 7.5: one socket with all CPUs.
void add_processor(Table& table, const SmbiosConfig& config) {
  constexpr std::uint8_t kCentral = 3, kOtherFamily = 1, kPopulatedEnabled = 0x41, kOther = 1;
  constexpr std::uint64_t k64Bit = 1U << 2;
  const std::uint64_t cores = std::min<std::uint64_t>(config.cpus, 255);
  table.begin(kProcessor);
  table.text("CPU 0").u8(kCentral).u8(kOtherFamily).text(kMaker);
  table.u32(config.cpu_signature).u32(config.cpu_features).text("");
  table.u8(0).u16(0).u16(0).u16(0).u8(kPopulatedEnabled).u8(kOther);
  table.u16(0xffff).u16(0xffff).u16(0xffff);  // no cache structures
  table.text("").text("").text("").u8(cores).u8(cores).u8(cores).u16(k64Bit).u16(kOtherFamily);
  table.u16(config.cpus).u16(config.cpus).u16(config.cpus);  // since 3.0
}

// 7.17
std::uint16_t add_memory_array(Table& table, std::uint64_t bytes) {
  constexpr std::uint8_t kOther = 1, kSystemMemory = 3, kMultiBitEcc = 6;
  constexpr std::uint32_t kExtended = 0x8000'0000;
  const std::uint64_t kib = bytes / KiB(1);
  const std::uint16_t handle = table.begin(kMemoryArray);
  table.u8(kOther).u8(kSystemMemory).u8(kMultiBitEcc);
  table.u32(kib < kExtended ? kib : kExtended).u16(Table::kNoHandle).u16(1);
  table.u64(kib < kExtended ? 0 : bytes);
  return handle;
}

// 7.18: all memory is one device.
void add_memory_device(Table& table, std::uint64_t bytes, std::uint16_t array) {
  constexpr std::uint16_t kUnknownWidth = 0xffff, kExtended = 0x7fff;
  constexpr std::uint8_t kDimm = 9, kRam = 7;
  constexpr std::uint16_t kOtherDetail = 2;
  const std::uint64_t mib = bytes / MiB(1);
  table.begin(kMemoryDevice);
  table.u16(array).u16(Table::kNoHandle).u16(kUnknownWidth).u16(kUnknownWidth);
  table.u16(mib < kExtended ? mib : kExtended).u8(kDimm).u8(0).text("DIMM 0").text("");
  table.u8(kRam).u16(kOtherDetail).u16(0).text(kMaker).text("").text("").text("").u8(0);
  table.u32(mib < kExtended ? 0 : mib).u16(0).u16(0).u16(0).u16(0);
}

// 7.20: where it is.
void add_mapped_array(Table& table, const GpaRange& range, std::uint16_t array) {
  constexpr std::uint32_t kExtended = 0xffff'ffff;
  const std::uint64_t first = range.base().value / KiB(1);
  const std::uint64_t last = range.end().value / KiB(1) - 1;
  const bool small = last < kExtended;
  table.begin(kMappedArray);
  table.u32(small ? first : kExtended).u32(small ? last : kExtended).u16(array).u8(1);
  table.u64(small ? 0 : range.base().value).u64(small ? 0 : range.end().value - 1);
}

void set_checksum(std::span<std::byte> bytes, std::size_t at) {
  unsigned sum = 0;
  for (const std::byte byte : bytes) sum += std::to_integer<unsigned>(byte);
  bytes[at] = static_cast<std::byte>(0x100 - (sum & 0xff));
}

void append_text(Bytes& bytes, std::string_view text) {
  for (const char c : text) append(bytes, static_cast<std::uint8_t>(c), 1);
}

// 5.2.1
Bytes entry2(const Table& table, std::size_t length, Gpa at) {
  constexpr std::size_t kIntermediate = 16;  // "_DMI_", with a checksum of its own
  Bytes entry;
  append_text(entry, "_SM_");
  append(entry, 0, 1);
  append(entry, kEntry2Size, 1);
  append(entry, 0x0802, 2);  // 2.8
  append(entry, table.largest(), 2);
  append(entry, 0, 6);
  append_text(entry, "_DMI_");
  append(entry, 0, 1);
  append(entry, length, 2);
  append(entry, at.value, 4);
  append(entry, table.count(), 2);
  append(entry, 0x28, 1);
  set_checksum(std::span(entry).subspan(kIntermediate), 5);
  set_checksum(entry, 4);
  return entry;
}

// 5.2.2
Bytes entry3(std::size_t length, Gpa at) {
  Bytes entry;
  append_text(entry, "_SM3_");
  append(entry, 0, 1);
  append(entry, kEntry3Size, 1);
  append(entry, 0x00'0003, 3);  // 3.0, docrev 0
  append(entry, 1, 1);
  append(entry, 0, 1);
  append(entry, length, 4);
  append(entry, at.value, 8);
  set_checksum(entry, 5);
  return entry;
}

}  // namespace

Result<Gpa> write_smbios_tables(const GuestMemory& memory, const SmbiosConfig& config) {
  if (config.cpus == 0)
    return fail(ErrorCode::kBadConfig, "SMBIOS tables for a machine without CPUs");
  Table table;
  add_bios(table);
  add_system(table, config.uuid);
  add_chassis(table);
  add_processor(table, config);
  const std::uint16_t array = add_memory_array(table, config.ram_bytes);
  add_memory_device(table, config.ram_bytes, array);
  for (const GpaRange& range : ram_ranges(config.ram_bytes)) add_mapped_array(table, range, array);
  table.begin(kBootStatus);
  table.zeroes(7);  // six reserved bytes; no error
  table.begin(kEnd);
  const Bytes& bytes = table.take();

  const Gpa tables(kSmbios.base().value + kEntryArea);
  GuestWriter writer(memory, kSmbios);
  VMM_TRY(writer.put(entry2(table, bytes.size(), tables)));
  VMM_TRY(writer.align(16));
  VMM_TRY(writer.put(entry3(bytes.size(), tables)));
  VMM_TRY(writer.align(kEntryArea));
  VMM_TRY(writer.put(bytes));
  return kSmbios.base();
}

}  // namespace vmm::x86
