#include "interrupts.h"

#include "acpi.h"
#include "apic.h"
#include "cpu.h"
#include "io_apic.h"
#include "layout.h"
#include "pic.h"
#include "print.h"
#include "serial.h"

struct Gate {  // SDM volume 3, figure 6-8
  uint16_t offset_low, selector;
  uint8_t stack_table, type;
  uint16_t offset_middle;
  uint32_t offset_high, reserved;
};
enum { kInterruptGate = 0x8e, kEntrySize = 16, kMaxFaults = 16 };

extern const char vector_entries[];  // vectors.S

static struct Gate idt[kVectorCount];
static void (*recover_function)(void);
static volatile uint32_t serial_interrupts;
static uint32_t faults;

static enum { kPolling, kThroughIoApic, kThroughPic } serial_path;

void interrupts_init(void (*recover)(void)) {
  recover_function = recover;
  for (uint32_t i = 0; i < kVectorCount; i++) {
    const uint64_t entry = (uint64_t)vector_entries + i * kEntrySize;
    idt[i] = (struct Gate){.offset_low = (uint16_t)entry,
                           .selector = kCodeSegment,
                           .type = kInterruptGate,
                           .offset_middle = (uint16_t)(entry >> 16)};
  }
  const struct TableRegister idt_register = {sizeof idt - 1, (uint64_t)idt};
  load_idt(&idt_register);
}

static void on_exception(const struct InterruptFrame* frame) {
  print("\n*** exception %lu, error code %lx, at rip %lx (cs %lx, rflags %lx, rsp %lx, cr2 %lx)\n",
        frame->vector, frame->error_code, frame->rip, frame->cs, frame->rflags, frame->rsp,
        read_cr2());
  if (++faults > kMaxFaults) {
    print("*** too many of them: halted\n");
    halt_forever();
  }
  restart_on_fresh_stack(recover_function);
}

// Called by vectors.S, interrupts off.
__attribute__((used)) void on_interrupt(const struct InterruptFrame* frame) {
  if (frame->vector < kPicVectorBase) on_exception(frame);
  if (frame->vector == kSerialVector) {
    serial_interrupts++;
    apic_end_of_interrupt();
  } else if (frame->vector == kPicVectorBase + 4) {
    serial_interrupts++;
    pic_end_of_interrupt();
  }
  // Everything else is spurious: nothing to acknowledge (SDM volume 3, 11.9; 8259A data sheet).
}

// Makes the UART interrupt, which it does at once when its transmitter is empty, and looks whether
// that reaches us.
static bool serial_interrupt_arrives(void) {
  const uint32_t before = serial_interrupts;
  serial_interrupt_on_transmit();
  enable_interrupts();
  for (int i = 0; i < 200 && serial_interrupts == before; i++) pause_cpu();
  disable_interrupts();
  serial_interrupt_on_receive();
  return serial_interrupts != before;
}

void interrupts_find_serial_path(void) {
  if (!serial_present()) return;
  pic_init();
  if (apic_present() && io_apic_present()) {
    io_apic_route(acpi.serial_gsi, kSerialVector, apic_id());
    if (serial_interrupt_arrives()) {
      serial_path = kThroughIoApic;
      return;
    }
    io_apic_mask(acpi.serial_gsi);
  }
  if (pic_present()) {
    if (apic_present()) apic_accept_pic();
    pic_unmask_serial();
    if (serial_interrupt_arrives()) {
      serial_path = kThroughPic;
      return;
    }
    pic_init();
  }
}

const char* interrupts_idle_description(void) {
  switch (serial_path) {
    case kThroughIoApic:
      return "hlt, COM1 wakes through the I/O APIC";
    case kThroughPic:
      return "hlt, COM1 wakes through the PIC";
    case kPolling:
      break;
  }
  return "polling, no interrupt from COM1 arrives";
}

void interrupts_wait_for_input(bool (*ready)(void)) {
  if (serial_path == kPolling) {
    pause_cpu();
    return;
  }
  disable_interrupts();
  if (!ready()) enable_interrupts_and_halt();
  disable_interrupts();
}
