#include "boot_info.h"

#include "print.h"
#include "string.h"

// Linux x86 boot protocol, Documentation/arch/x86/zero-page.rst.
enum {
  kAcpiRsdpAddress = 0x070,
  kE820Entries = 0x1e8,
  kCommandLinePointer = 0x228,
  kE820Table = 0x2d0,
  kE820EntrySize = 20,
};

struct BootInfo boot_info;

void boot_info_read(const uint8_t* zero_page) {
  boot_info.rsdp = get64(zero_page + kAcpiRsdpAddress);
  uint32_t count = zero_page[kE820Entries];
  if (count > kMaxMemoryRanges) count = kMaxMemoryRanges;
  boot_info.range_count = count;
  for (uint32_t i = 0; i < count; i++) {
    const uint8_t* entry = zero_page + kE820Table + i * kE820EntrySize;
    boot_info.ranges[i] = (struct MemoryRange){get64(entry), get64(entry + 8), get32(entry + 16)};
  }
  const char* line = (const char*)(uint64_t)get32(zero_page + kCommandLinePointer);
  uint32_t length = 0;
  if (line) {
    while (length < kMaxCommandLine - 1 && line[length] != '\0') {
      boot_info.command_line[length] = line[length];
      length++;
    }
  }
  boot_info.command_line[length] = '\0';
}

static const char* type_name(uint32_t type) {
  static const char* const kNames[] = {"?", "usable", "reserved", "ACPI tables", "ACPI NVS", "bad"};
  return type < sizeof kNames / sizeof kNames[0] ? kNames[type] : "?";
}

void print_memory_map(void) {
  uint64_t usable = 0;
  for (uint32_t i = 0; i < boot_info.range_count; i++) {
    if (boot_info.ranges[i].type == 1) usable += boot_info.ranges[i].size;
  }
  print("memory   %lu KiB usable\n", usable >> 10);
  for (uint32_t i = 0; i < boot_info.range_count; i++) {
    const struct MemoryRange* range = &boot_info.ranges[i];
    print("  %012lx-%012lx %s\n", range->base, range->base + range->size - 1,
          type_name(range->type));
  }
}
