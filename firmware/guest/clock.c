#include "clock.h"

#include "acpi.h"
#include "cpu.h"
#include "devices.h"
#include "print.h"

enum { kPmTimerHz = 3579545 };  // ACPI specification 4.8.3.3

struct Frequency {
  uint64_t khz;  // 0: not known
  const char* source;
};

static uint32_t pm_timer(void) { return in32(acpi.pm_timer) & 0xffffff; }

bool pm_timer_present(void) { return acpi.pm_timer != 0 && in32(acpi.pm_timer) != 0xffffffff; }

// About a millisecond against the PM timer; a timer that stands still ends it too.
static uint64_t measure_khz(void) {
  enum { kTicks = kPmTimerHz / 1000, kPatience = 20000 };
  const uint32_t start = pm_timer();
  const uint64_t begin = read_tsc();
  uint32_t ticks = 0;
  for (int i = 0; i < kPatience && ticks < kTicks; i++) ticks = (pm_timer() - start) & 0xffffff;
  const uint64_t cycles = read_tsc() - begin;
  return ticks < kTicks ? 0 : cycles * kPmTimerHz / ticks / 1000;
}

static struct Frequency tsc_frequency(void) {
  const uint32_t max = cpuid(0, 0).eax;
  if (max >= 0x15) {
    const struct Cpuid ratio = cpuid(0x15, 0);
    if (ratio.eax != 0 && ratio.ebx != 0 && ratio.ecx != 0) {
      return (struct Frequency){(uint64_t)ratio.ecx * ratio.ebx / ratio.eax / 1000, "CPUID 15h"};
    }
  }
  if (cpuid(1, 0).ecx >> 31 && cpuid(0x40000000, 0).eax >= 0x40000010) {
    const uint32_t khz = cpuid(0x40000010, 0).eax;
    if (khz != 0) return (struct Frequency){khz, "CPUID 40000010h"};
  }
  if (pm_timer_present()) {
    const uint64_t khz = measure_khz();
    if (khz != 0) return (struct Frequency){khz, "PM timer"};
  }
  if (max >= 0x16) {
    const uint32_t mhz = cpuid(0x16, 0).eax & 0xffff;
    if (mhz != 0) return (struct Frequency){(uint64_t)mhz * 1000, "CPUID 16h"};
  }
  return (struct Frequency){0, ""};
}

static uint8_t from_bcd(uint8_t value) { return (uint8_t)((value >> 4) * 10 + (value & 15)); }

// MC146818A: registers 0, 2, 4, 7, 8, 9, and the century where the ACPI tables usually put it.
static void print_time_of_day(void) {
  static const uint8_t kRegisters[] = {0x00, 0x02, 0x04, 0x07, 0x08, 0x09, 0x32};
  uint8_t value[sizeof kRegisters];
  for (int i = 0; i < 1000 && (rtc_read(0x0a) & 0x80); i++) pause_cpu();  // update in progress
  for (unsigned i = 0; i < sizeof kRegisters; i++) value[i] = rtc_read(kRegisters[i]);
  const uint8_t mode = rtc_read(0x0b);
  const bool pm = !(mode & 2) && (value[2] & 0x80);
  if (!(mode & 2)) value[2] &= 0x7f;
  if (!(mode & 4)) {
    for (unsigned i = 0; i < sizeof kRegisters; i++) value[i] = from_bcd(value[i]);
  }
  if (!(mode & 2)) value[2] = (uint8_t)(value[2] % 12 + (pm ? 12 : 0));
  const unsigned century = value[6] >= 19 && value[6] <= 21 ? value[6] : 20;
  print("%u-%02u-%02u %02u:%02u:%02u", century * 100 + value[5], value[4], value[3], value[2],
        value[1], value[0]);
}

void print_clock(void) {
  print("clock    ");
  if (rtc_present()) {
    print_time_of_day();
  } else {
    print("no RTC");
  }
  const struct Frequency tsc = tsc_frequency();
  if (tsc.khz != 0) {
    print(", TSC %lu.%03lu MHz (%s)\n", tsc.khz / 1000, tsc.khz % 1000, tsc.source);
  } else {
    print(", TSC speed unknown\n");
  }
}
