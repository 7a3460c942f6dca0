#include "pic.h"

#include "cpu.h"
#include "layout.h"

enum { kMaster = 0x20, kMasterData = 0x21, kSlave = 0xa0, kSlaveData = 0xa1 };

static bool present;

void pic_init(void) {
  // ICW1 to ICW4 (8259A data sheet): cascade on input 2, 8086 mode, no automatic end.
  out8(kMaster, 0x11);
  out8(kMasterData, kPicVectorBase);
  out8(kMasterData, 0x04);
  out8(kMasterData, 0x01);
  out8(kSlave, 0x11);
  out8(kSlaveData, kPicVectorBase + 8);
  out8(kSlaveData, 0x02);
  out8(kSlaveData, 0x01);
  out8(kMasterData, 0xa5);  // the mask is the only register that reads back
  present = in8(kMasterData) == 0xa5;
  out8(kMasterData, 0xff);
  out8(kSlaveData, 0xff);
}

bool pic_present(void) { return present; }
void pic_unmask_serial(void) { out8(kMasterData, (uint8_t) ~(1 << 4)); }
void pic_end_of_interrupt(void) { out8(kMaster, 0x20); }
