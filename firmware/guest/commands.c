#include "commands.h"

#include <stdbool.h>
#include <stdint.h>

#include "boot_info.h"
#include "cpu.h"
#include "cpu_info.h"
#include "physical.h"
#include "power.h"
#include "print.h"
#include "smp.h"
#include "string.h"

enum { kMaxWords = 4, kDefaultDump = 64, kMaxDump = 4096 };

struct Words {
  unsigned count;
  char* word[kMaxWords];
};

// Hexadecimal, with or without 0x; at most `max`.
static bool parse_number(const char* text, uint64_t max, uint64_t* value) {
  if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X')) text += 2;
  uint64_t result = 0;
  unsigned digits = 0;
  for (; *text != '\0'; text++, digits++) {
    const char c = *text;
    uint64_t digit;
    if (c >= '0' && c <= '9') {
      digit = (uint64_t)(c - '0');
    } else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f') {
      digit = (uint64_t)((c | 0x20) - 'a' + 10);
    } else {
      return false;
    }
    if (result >> 60 != 0) return false;
    result = result << 4 | digit;
  }
  *value = result;
  return digits != 0 && result <= max;
}

static void dump_row(uint64_t address, uint64_t count) {
  char text[17];
  uint32_t word = 0;
  print("%012lx ", address);
  for (uint64_t i = 0; i < 16; i++) {
    if (i >= count) {
      print("   ");
      continue;
    }
    const uint64_t at = address + i;
    if (i == 0 || at % 4 == 0) word = physical_read32(at & ~3ull);
    const uint8_t byte = (uint8_t)(word >> at % 4 * 8);
    print(" %02x", byte);
    text[i] = byte >= 0x20 && byte < 0x7f ? (char)byte : '.';
  }
  text[count < 16 ? count : 16] = '\0';
  print("  |%s|\n", text);
}

static void run_mem(const struct Words* words) {
  if (words->count == 1) {
    print_memory_map();
    return;
  }
  const uint64_t end = 1ull << physical_bits();
  uint64_t address, length = kDefaultDump;
  if (!parse_number(words->word[1], end - 1, &address) ||
      (words->count > 2 && !parse_number(words->word[2], kMaxDump, &length)) || words->count > 3) {
    print("mem [ADDRESS [LENGTH]]: below %lx, at most %x bytes\n", end, kMaxDump);
    return;
  }
  if (length > end - address) length = end - address;
  for (uint64_t at = 0; at < length; at += 16) dump_row(address + at, length - at);
}

// io, iow and iol: bytes, 16-bit words, 32-bit longs.
static void run_io(const struct Words* words, unsigned width) {
  const uint64_t max = width == 4 ? 0xffffffff : width == 2 ? 0xffff : 0xff;
  uint64_t port, value;
  if (words->count < 2 || words->count > 3 || !parse_number(words->word[1], 0xffff, &port) ||
      (words->count == 3 && !parse_number(words->word[2], max, &value))) {
    print("%s PORT [VALUE]: a port up to ffff, a value up to %lx\n", words->word[0], max);
    return;
  }
  const uint16_t at = (uint16_t)port;
  if (words->count == 3) {
    if (width == 1) out8(at, (uint8_t)value);
    if (width == 2) out16(at, (uint16_t)value);
    if (width == 4) out32(at, (uint32_t)value);
    return;
  }
  if (width == 1) print("%02x\n", in8(at));
  if (width == 2) print("%04x\n", in16(at));
  if (width == 4) print("%08x\n", in32(at));
}

static void run_help(void) {
  print(
      "mem [ADDRESS [LENGTH]]  the memory map, or a dump of physical memory\n"
      "cpu                     processors and CPUID\n"
      "io PORT [VALUE]         reads or writes a port: a byte; iow: 16 bits, iol: 32 bits\n"
      "cr                      control registers\n"
      "reboot  off  panic      reset, power off, report a panic\n"
      "hlt                     stop this processor for good\n"
      "Numbers are hexadecimal. Backspace and Ctrl-U edit, Ctrl-C drops the line.\n");
}

static struct Words split(char* line) {
  struct Words words = {0};
  for (;;) {
    while (*line == ' ') *line++ = '\0';
    if (*line == '\0') return words;
    if (words.count == kMaxWords) return words;  // one too many is enough to be refused
    words.word[words.count++] = line;
    while (*line != '\0' && *line != ' ') line++;
  }
}

void command_run(char* line) {
  const struct Words words = split(line);
  if (words.count == 0) return;
  const char* name = words.word[0];
  if (string_equal(name, "help")) {
    run_help();
  } else if (string_equal(name, "mem")) {
    run_mem(&words);
  } else if (string_equal(name, "cpu")) {
    print_processors();
    print_cpuid();
  } else if (string_equal(name, "io")) {
    run_io(&words, 1);
  } else if (string_equal(name, "iow")) {
    run_io(&words, 2);
  } else if (string_equal(name, "iol")) {
    run_io(&words, 4);
  } else if (string_equal(name, "cr")) {
    print_control_registers();
  } else if (string_equal(name, "reboot")) {
    power_reboot();
  } else if (string_equal(name, "off")) {
    power_off();
  } else if (string_equal(name, "panic")) {
    power_panic();
  } else if (string_equal(name, "hlt")) {
    halt_forever();
  } else {
    print("%s: no such command; help lists them\n", name);
  }
}
