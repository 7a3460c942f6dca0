#include "smp.h"

#include "acpi.h"
#include "apic.h"
#include "cpu.h"
#include "layout.h"
#include "print.h"
#include "string.h"

extern const char trampoline_begin[], trampoline_end[];

uint32_t processors_started;  // handed out by trampoline.S
static uint32_t processors_up;
static uint32_t ids_up[kMaxProcessors];  // APIC ids, in the order in which they came
static uint32_t boot_id;

// Where trampoline.S ends, on the stack of its own processor, interrupts off.
__attribute__((used)) void processor_main(uint32_t number) {
  ids_up[number] = apic_id();
  __atomic_fetch_add(&processors_up, 1, __ATOMIC_RELEASE);
}

static uint32_t up(void) { return __atomic_load_n(&processors_up, __ATOMIC_ACQUIRE); }

// A quarter of a second or so on any processor from 1 to 5 GHz: how fast this one is, is not known
// yet. A processor that is there needs well under a millisecond.
static void wait_for(uint32_t count) {
  const uint64_t start = read_tsc();
  while (up() < count && read_tsc() - start < 600000000) pause_cpu();
}

void smp_start(void) {
  if (!apic_present()) return;
  boot_id = apic_id();
  uint32_t others = 0;
  memcpy((void*)kTrampolineAddress, trampoline_begin,
         (uint64_t)(trampoline_end - trampoline_begin));
  for (uint32_t i = 0; i < acpi.processor_count; i++) {
    if (acpi.processors[i] == boot_id) continue;
    others++;
    apic_send_init(acpi.processors[i]);
  }
  // Twice, as the MP specification has it (B.4); a processor that runs ignores the second one.
  for (int attempt = 0; attempt < 2 && up() < others; attempt++) {
    for (uint32_t i = 0; i < acpi.processor_count; i++) {
      if (acpi.processors[i] == boot_id) continue;
      apic_send_startup(acpi.processors[i], kTrampolineAddress >> 12);
    }
    wait_for(others);
  }
}

void print_processors(void) {
  if (!apic_present()) {
    print("cpus     1 (no local APIC: no others can be started)\n");
    return;
  }
  const uint32_t count = up();
  print("cpus     %u of %u up, APIC ids %u", count + 1,
        acpi.processor_count ? acpi.processor_count : 1, boot_id);
  for (uint32_t i = 0; i < count; i++) print(" %u", ids_up[i]);
  print(apic_is_x2apic() ? " (x2APIC)\n" : " (xAPIC)\n");
}
