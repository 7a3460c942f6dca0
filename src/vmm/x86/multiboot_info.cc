#include "vmm/x86/multiboot_info.h"

#include <algorithm>
#include <array>

#include "base/le.h"
#include "base/size.h"
#include "memory/guest_writer.h"
#include "vmm/x86/layout.h"

namespace vmm::x86 {
namespace {

constexpr std::string_view kLoaderName = "vmm";
constexpr std::uint64_t kRsdp1Size = 20;
constexpr std::uint64_t kRsdp2Size = 36;

std::uint32_t low32(std::uint64_t value) { return static_cast<std::uint32_t>(value); }

// KiB of RAM from 1 MiB on without a hole.
std::uint32_t upper_kib(std::span<const E820Entry> e820) {
  for (const E820Entry& entry : e820) {
    if (entry.type != E820Type::kRam || !entry.range.contains(kExtendedRamBase)) continue;
    return low32(entry.range.end().offset_from(kExtendedRamBase) / KiB(1));
  }
  return 0;
}

Result<Gpa> put_string(GuestWriter& writer, std::string_view text) {
  const Gpa at = VMM_TRY(writer.put(std::as_bytes(std::span(text))));
  VMM_TRY(writer.fill(1, std::byte{0}));
  return at;
}

// --- Version 1 -----------------------------------------------------------------------------------

enum Flag : std::uint32_t {
  kMemory = 1U << 0,
  kCmdline = 1U << 2,
  kModules = 1U << 3,
  kSections = 1U << 5,
  kMemoryMap = 1U << 6,
  kLoader = 1U << 9,
};

struct Info1 {
  Le32 flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr;
  Le32 sections_count, sections_size, sections_addr, sections_names;
  Le32 mmap_length, mmap_addr, drives_length, drives_addr, config_table;
  Le32 boot_loader_name, apm_table;
  std::array<std::uint8_t, 44> video{};  // VBE and framebuffer: none
};
static_assert(sizeof(Info1) == 116);

struct Module1 {
  Le32 start, end, string, reserved;
};
static_assert(sizeof(Module1) == 16);

struct MapEntry1 {
  Le32 size;  // of the rest
  Le64 base, length;
  Le32 type;
};
static_assert(sizeof(MapEntry1) == 24);

Result<void> put_modules(GuestWriter& tables, GuestWriter& strings, const MultibootInfo& info,
                         Info1& head) {
  std::vector<Module1> modules;
  for (const MultibootModule& module : info.modules) {
    const Gpa text = VMM_TRY(put_string(strings, module.text));
    modules.push_back(
        {low32(module.range.base().value), low32(module.range.end().value), low32(text.value), {}});
  }
  head.mods_count = low32(modules.size());
  head.mods_addr = low32(VMM_TRY(tables.put(std::as_bytes(std::span(modules)))).value);
  return {};
}

Result<void> put_map(GuestWriter& tables, const MultibootInfo& info, Info1& head) {
  head.mmap_addr = low32(tables.position().value);
  for (const E820Entry& entry : info.e820) {
    MapEntry1 wire;
    wire.size = low32(sizeof(MapEntry1) - sizeof(Le32));
    wire.base = entry.range.base().value;
    wire.length = entry.range.size();
    wire.type = static_cast<std::uint32_t>(entry.type);
    VMM_TRY(tables.put_value(wire));
  }
  head.mmap_length = low32(tables.position().value) - head.mmap_addr;
  return {};
}

// --- Version 2 -----------------------------------------------------------------------------------

enum Tag : std::uint32_t {
  kEndTag = 0,
  kCmdlineTag = 1,
  kLoaderTag = 2,
  kModuleTag = 3,
  kMemoryTag = 4,
  kMapTag = 6,
  kSectionsTag = 9,
  kRsdp1Tag = 14,
  kRsdp2Tag = 15,
  kLoadBaseTag = 21,
};
constexpr std::uint64_t kTagAlignment = 8;

// Tags one after the other; the first failure stays.
class Tags {
 public:
  explicit Tags(GuestWriter& writer) : writer_(writer) {}

  void add(Tag type, std::span<const Le32> words, std::span<const std::byte> rest = {}) {
    if (result_) result_ = write(type, words, rest);
  }
  void add_text(Tag type, std::span<const Le32> words, std::string_view text) {
    const std::string terminated(text);
    add(type, words, std::as_bytes(std::span(terminated.c_str(), terminated.size() + 1)));
  }
  Result<void> result() const { return result_; }

 private:
  Result<void> write(Tag type, std::span<const Le32> words, std::span<const std::byte> rest) {
    const std::array<Le32, 2> head{static_cast<std::uint32_t>(type),
                                   low32(sizeof head + words.size_bytes() + rest.size())};
    VMM_TRY(writer_.put(std::as_bytes(std::span(head))));
    VMM_TRY(writer_.put(std::as_bytes(words)));
    VMM_TRY(writer_.put(rest));
    VMM_TRY(writer_.align(kTagAlignment));
    return {};
  }
  GuestWriter& writer_;
  Result<void> result_;
};

void add_map(Tags& tags, std::span<const E820Entry> e820) {
  struct MapEntry2 {
    Le64 base, length;
    Le32 type, reserved;
  };
  static_assert(sizeof(MapEntry2) == 24);
  std::vector<MapEntry2> entries;
  for (const E820Entry& entry : e820) {
    entries.push_back(
        {entry.range.base().value, entry.range.size(), static_cast<std::uint32_t>(entry.type), {}});
  }
  const std::array<Le32, 2> head{low32(sizeof(MapEntry2)), 0U};
  tags.add(kMapTag, head, std::as_bytes(std::span(entries)));
}

// Copies of the RSDP: the kernel need not search for it.
Result<void> add_rsdp(Tags& tags, const GuestMemory& memory, Gpa rsdp) {
  std::array<std::byte, kRsdp2Size> bytes{};
  VMM_TRY(memory.read(rsdp, bytes));
  tags.add(kRsdp1Tag, {}, std::span(bytes).first(kRsdp1Size));
  tags.add(kRsdp2Tag, {}, bytes);
  return {};
}

}  // namespace

Result<Gpa> write_multiboot_info(const GuestMemory& memory, const MultibootInfo& info) {
  GuestWriter tables(memory, kMultibootInfo);
  GuestWriter strings(memory, kCommandLine);
  Info1 head;
  head.flags = kMemory | kCmdline | kModules | kMemoryMap | kLoader;
  head.mem_lower = low32(kLowRam.size() / KiB(1));
  head.mem_upper = upper_kib(info.e820);
  // The structure points to what follows it, so it is written last.
  const Gpa start = VMM_TRY(tables.fill(sizeof(Info1), std::byte{0}));
  VMM_TRY(tables.align(kTagAlignment));
  head.cmdline = low32(VMM_TRY(put_string(strings, info.cmdline)).value);
  head.boot_loader_name = low32(VMM_TRY(put_string(strings, kLoaderName)).value);
  VMM_TRY(put_modules(tables, strings, info, head));
  VMM_TRY(put_map(tables, info, head));
  if (info.sections) {
    head.flags = head.flags | kSections;
    head.sections_count = info.sections->count;
    head.sections_size = info.sections->entry_size;
    head.sections_names = info.sections->string_index;
    head.sections_addr = low32(VMM_TRY(tables.put(info.sections->headers)).value);
  }
  GuestWriter first(memory, fixed_range(start.value, sizeof(Info1)));
  return first.put_value(head);
}

Result<Gpa> write_multiboot2_info(const GuestMemory& memory, const MultibootInfo& info) {
  GuestWriter writer(memory, kMultibootInfo);
  const Gpa start = VMM_TRY(writer.fill(8, std::byte{0}));  // total size, reserved
  Tags tags(writer);
  tags.add_text(kCmdlineTag, {}, info.cmdline);
  tags.add_text(kLoaderTag, {}, kLoaderName);
  for (const MultibootModule& module : info.modules) {
    const std::array<Le32, 2> range{low32(module.range.base().value),
                                    low32(module.range.end().value)};
    tags.add_text(kModuleTag, range, module.text);
  }
  const std::array<Le32, 2> kib{low32(kLowRam.size() / KiB(1)), upper_kib(info.e820)};
  tags.add(kMemoryTag, kib);
  add_map(tags, info.e820);
  if (info.sections) {
    const std::array<Le32, 3> head{info.sections->count, info.sections->entry_size,
                                   info.sections->string_index};
    tags.add(kSectionsTag, head, info.sections->headers);
  }
  if (info.rsdp) VMM_TRY(add_rsdp(tags, memory, *info.rsdp));
  if (info.load_base) {
    const std::array<Le32, 1> base{low32(info.load_base->value)};
    tags.add(kLoadBaseTag, base);
  }
  tags.add(kEndTag, {});
  VMM_TRY(tags.result());
  VMM_TRY(memory.write<Le32>(start, low32(writer.position().value - start.value)));
  return start;
}

}  // namespace vmm::x86
