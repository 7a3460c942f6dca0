// What the loader told us, copied out of the zero page.
#pragma once

#include <stdint.h>

enum { kMaxMemoryRanges = 128, kMaxCommandLine = 1024 };

struct MemoryRange {
  uint64_t base, size;
  uint32_t type;  // E820: 1 usable, 2 reserved, 3 ACPI tables, 4 ACPI NVS, 5 bad
};

struct BootInfo {
  uint32_t range_count;
  struct MemoryRange ranges[kMaxMemoryRanges];
  uint64_t rsdp;  // 0: not told
  char command_line[kMaxCommandLine];
};

extern struct BootInfo boot_info;

void boot_info_read(const uint8_t* zero_page);
void print_memory_map(void);
