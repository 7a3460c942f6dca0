// Numbers that C and assembly share.
#pragma once

#define kCodeSegment 0x08
#define kDataSegment 0x10

#define kBootStackSize 16384

// Where application processors start, in real mode: a page below 1 MiB (SDM volume 3, 9.4.4). It
// must be RAM, and nothing that the boot loader left there is needed any more by then.
#define kTrampolineAddress 0x8000

#define kMaxProcessors 256
#define kProcessorStackSize 1024

// Vectors: exceptions, then the sixteen of the PIC pair, then our own.
#define kVectorCount 64
#define kPicVectorBase 0x20
#define kSerialVector 0x30
#define kSpuriousVector 0x3f
