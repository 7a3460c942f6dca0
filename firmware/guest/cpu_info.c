#include "cpu_info.h"

#include <stdint.h>

#include "cpu.h"
#include "print.h"

enum Word { k1Ecx, k1Edx, k7Ebx, k7Ecx, k7Edx, k80000001Ecx, k80000001Edx, k80000007Edx, kWords };

enum { kRightMargin = 72 };

struct Feature {
  uint8_t word, bit;
  char name[14];
};

// The notable ones, with the names that Linux gives them (SDM volume 2, CPUID; APM volume 3, E).
static const struct Feature kFeatures[] = {
    {k1Edx, 5, "msr"},
    {k1Edx, 9, "apic"},
    {k1Ecx, 0, "sse3"},
    {k1Ecx, 9, "ssse3"},
    {k1Ecx, 19, "sse4_1"},
    {k1Ecx, 20, "sse4_2"},
    {k1Ecx, 23, "popcnt"},
    {k1Ecx, 13, "cx16"},
    {k1Ecx, 25, "aes"},
    {k1Ecx, 26, "xsave"},
    {k1Ecx, 28, "avx"},
    {k1Ecx, 12, "fma"},
    {k7Ebx, 5, "avx2"},
    {k7Ebx, 16, "avx512f"},
    {k7Ebx, 3, "bmi1"},
    {k7Ebx, 8, "bmi2"},
    {k7Ebx, 9, "erms"},
    {k7Ebx, 29, "sha_ni"},
    {k1Ecx, 30, "rdrand"},
    {k7Ebx, 18, "rdseed"},
    {k7Ebx, 0, "fsgsbase"},
    {k1Ecx, 17, "pcid"},
    {k7Ebx, 10, "invpcid"},
    {k7Ebx, 7, "smep"},
    {k7Ebx, 20, "smap"},
    {k7Ecx, 2, "umip"},
    {k7Ecx, 3, "pku"},
    {k7Ecx, 16, "la57"},
    {k80000001Edx, 20, "nx"},
    {k80000001Edx, 26, "pdpe1gb"},
    {k80000001Edx, 27, "rdtscp"},
    {k80000001Edx, 29, "lm"},
    {k80000007Edx, 8, "constant_tsc"},
    {k1Ecx, 24, "tsc_deadline"},
    {k1Ecx, 21, "x2apic"},
    {k7Edx, 26, "spec_ctrl"},
    {k1Ecx, 5, "vmx"},
    {k80000001Ecx, 2, "svm"},
    {k1Ecx, 31, "hypervisor"},
};

static void print_registers_as_text(const uint32_t* words, unsigned count) {
  for (unsigned i = 0; i < count * 4; i++) {
    const char c = (char)(words[i / 4] >> (i % 4 * 8));
    if (c >= 0x20 && c < 0x7f) print_char(c);
  }
}

// A blank and the name; returns how many columns that took.
static unsigned print_word(const char* name) {
  unsigned length = 1;
  print_char(' ');
  for (; *name != '\0'; name++, length++) print_char(*name);
  return length;
}

static void print_features(uint32_t max, uint32_t max_extended) {
  uint32_t words[kWords] = {0};
  const struct Cpuid basic = cpuid(1, 0);
  words[k1Ecx] = basic.ecx;
  words[k1Edx] = basic.edx;
  if (max >= 7) {
    const struct Cpuid structured = cpuid(7, 0);
    words[k7Ebx] = structured.ebx;
    words[k7Ecx] = structured.ecx;
    words[k7Edx] = structured.edx;
  }
  if (max_extended >= 0x80000001) {
    const struct Cpuid extended = cpuid(0x80000001, 0);
    words[k80000001Ecx] = extended.ecx;
    words[k80000001Edx] = extended.edx;
  }
  if (max_extended >= 0x80000007) words[k80000007Edx] = cpuid(0x80000007, 0).edx;
  unsigned column = kRightMargin;  // a new line before the first one
  for (unsigned i = 0; i < sizeof kFeatures / sizeof kFeatures[0]; i++) {
    const struct Feature* feature = &kFeatures[i];
    if (!(words[feature->word] >> feature->bit & 1)) continue;
    if (column >= kRightMargin) {
      print("\n        ");
      column = 8;
    }
    column += print_word(feature->name);
  }
  print("\n");
}

void print_cpuid(void) {
  const struct Cpuid vendor = cpuid(0, 0);
  const struct Cpuid version = cpuid(1, 0);
  const uint32_t max_extended = cpuid(0x80000000, 0).eax;
  // SDM volume 2, CPUID, "Version Information": the extended fields count where the base is full.
  uint32_t family = version.eax >> 8 & 15, model = version.eax >> 4 & 15;
  if (family == 6 || family == 15) model |= version.eax >> 12 & 0xf0;
  if (family == 15) family += version.eax >> 20 & 0xff;

  print("cpuid    ");
  print_registers_as_text((const uint32_t[]){vendor.ebx, vendor.edx, vendor.ecx}, 3);
  print(" family %u model %u stepping %u", family, model, version.eax & 15);
  if (max_extended >= 0x80000004 && cpuid(0x80000002, 0).eax != 0) {
    print(", ");
    for (uint32_t leaf = 0x80000002; leaf <= 0x80000004; leaf++) {
      const struct Cpuid brand = cpuid(leaf, 0);
      print_registers_as_text((const uint32_t[]){brand.eax, brand.ebx, brand.ecx, brand.edx}, 4);
    }
  }
  if (version.ecx >> 31) {
    const struct Cpuid hypervisor = cpuid(0x40000000, 0);
    print(", hypervisor ");
    print_registers_as_text((const uint32_t[]){hypervisor.ebx, hypervisor.ecx, hypervisor.edx}, 3);
  }
  print_features(vendor.eax, max_extended);
}

void print_control_registers(void) {
  const struct TableRegister gdt = store_gdt(), idt = store_idt();
  print("cr0 %016lx  cr2 %016lx  cr3 %016lx\n", read_cr0(), read_cr2(), read_cr3());
  print("cr4 %016lx  cr8 %016lx  efer %016lx\n", read_cr4(), read_cr8(), read_msr(0xc0000080));
  print("rflags %lx  gdt %lx limit %x  idt %lx limit %x\n", read_flags(), gdt.base, gdt.limit,
        idt.base, idt.limit);
}
