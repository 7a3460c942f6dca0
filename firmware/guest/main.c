// The guest's story from its first C instruction to the prompt.
#include <stdbool.h>
#include <stdint.h>

#include "acpi.h"
#include "apic.h"
#include "boot_info.h"
#include "clock.h"
#include "commands.h"
#include "cpu_info.h"
#include "devices.h"
#include "interrupts.h"
#include "io_apic.h"
#include "power.h"
#include "print.h"
#include "prompt.h"
#include "serial.h"
#include "smp.h"
#include "string.h"

// What is left to do once the report is out; a fault on the way comes back here and goes on.
static char* pending_commands;
static bool off_when_done;

// The command line's words: `off`, and `cmd=A;B;C` to the end of the line, or to the closing quote
// when it begins with one. Others are not ours.
static void read_options(char* line) {
  while (*line != '\0') {
    if (*line == ' ') {
      line++;
      continue;
    }
    char* word = line;
    if (memcmp(word, "cmd=", 4) == 0) {
      pending_commands = word + 4;
      if (*pending_commands != '"') return;
      pending_commands++;
      for (line = pending_commands; *line != '\0' && *line != '"';) line++;
    } else {
      while (*line != '\0' && *line != ' ') line++;
    }
    if (*line != '\0') *line++ = '\0';
    if (string_equal(word, "off")) off_when_done = true;
  }
}

static void run_options_then_prompt(void) {
  while (pending_commands) {
    char* command = pending_commands;
    char* end = command;
    while (*end != '\0' && *end != ';') end++;
    pending_commands = *end == ';' ? end + 1 : 0;
    *end = '\0';
    print("vmm> %s\n", command);
    command_run(command);
  }
  if (off_when_done) {
    off_when_done = false;
    power_off();
  }
  prompt_run();
}

static bool needs_x2apic(void) {
  for (uint32_t i = 0; i < acpi.processor_count; i++) {
    if (acpi.processors[i] > 254) return true;
  }
  return false;
}

// Called by start.S on the boot processor.
__attribute__((used)) void guest_main(const uint8_t* zero_page) {
  boot_info_read(zero_page);  // first: what the loader left in low memory may be overwritten later
  serial_init();
  print("\nvmm built-in guest " VMM_VERSION "\n\n");
  read_options(boot_info.command_line);
  interrupts_init(run_options_then_prompt);

  print_memory_map();
  acpi_read(boot_info.rsdp);
  apic_init(acpi.local_apic, needs_x2apic());
  smp_start();
  print_processors();
  io_apic_init();
  interrupts_find_serial_path();
  print_devices();
  print_clock();
  print_cpuid();
  print("idle     %s\n\nType help for the commands.\n", interrupts_idle_description());
  run_options_then_prompt();
}
