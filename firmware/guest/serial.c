#include "serial.h"

#include "cpu.h"

// National PC16550D data sheet, table II; the base is the PC's COM1.
enum {
  kBase = 0x3f8,
  kData = kBase,                 // RBR, THR; DLL while DLAB is set
  kInterruptEnable = kBase + 1,  // IER; DLM while DLAB is set
  kInterruptId = kBase + 2,      // IIR when read, FCR when written
  kLineControl = kBase + 3,
  kModemControl = kBase + 4,
  kLineStatus = kBase + 5,
  kModemStatus = kBase + 6,
  kScratch = kBase + 7,
};
enum { kDataReady = 0x01, kTransmitterEmpty = 0x20, kFifoSize = 16 };

static bool present;
static bool has_fifo;
static int room;  // bytes that the transmitter takes without being asked again

void serial_init(void) {
  out8(kInterruptEnable, 0);
  out8(kLineControl, 0x80);
  out8(kData, 1);  // 115200 baud
  out8(kInterruptEnable, 0);
  out8(kLineControl, 0x03);   // 8 bits, no parity, 1 stop bit
  out8(kInterruptId, 0x07);   // FIFOs on and empty, an interrupt at the first byte
  out8(kModemControl, 0x0b);  // DTR, RTS, and OUT2, which lets the interrupt out
  out8(kScratch, 0x5a);
  present = in8(kScratch) == 0x5a;
  has_fifo = (in8(kInterruptId) & 0xc0) == 0xc0;
}

bool serial_present(void) { return present; }
bool serial_has_fifo(void) { return has_fifo; }

void serial_put(char c) {
  if (room == 0) {
    // However long it takes: whoever reads the other end may hold us up, and then gets it all.
    while (!(in8(kLineStatus) & kTransmitterEmpty)) pause_cpu();
    room = has_fifo ? kFifoSize : 1;
  }
  out8(kData, (uint8_t)c);
  room--;
}

int serial_get(void) {
  if (!present || !(in8(kLineStatus) & kDataReady)) return -1;
  return in8(kData);
}

void serial_interrupt_on_transmit(void) { out8(kInterruptEnable, 0x02); }

void serial_interrupt_on_receive(void) {
  out8(kInterruptEnable, 0x01);
  // Whatever was pending is looked at and gone, so that the next byte makes an edge.
  (void)in8(kInterruptId);
  (void)in8(kLineStatus);
  (void)in8(kModemStatus);
}
