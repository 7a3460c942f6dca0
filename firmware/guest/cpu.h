// Single instructions that C has no word for.
#pragma once

#include <stdint.h>

static inline uint8_t in8(uint16_t port) {
  uint8_t value;
  __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
  return value;
}
static inline uint16_t in16(uint16_t port) {
  uint16_t value;
  __asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port));
  return value;
}
static inline uint32_t in32(uint16_t port) {
  uint32_t value;
  __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
  return value;
}
static inline void out8(uint16_t port, uint8_t value) {
  __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}
static inline void out16(uint16_t port, uint16_t value) {
  __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory");
}
static inline void out32(uint16_t port, uint32_t value) {
  __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

// Device memory: one access of exactly this width each.
static inline uint32_t mmio_read32(uint64_t address) { return *(volatile uint32_t*)address; }
static inline void mmio_write32(uint64_t address, uint32_t value) {
  *(volatile uint32_t*)address = value;
}

struct Cpuid {
  uint32_t eax, ebx, ecx, edx;
};
static inline struct Cpuid cpuid(uint32_t leaf, uint32_t subleaf) {
  struct Cpuid r;
  __asm__ volatile("cpuid"
                   : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
                   : "a"(leaf), "c"(subleaf));
  return r;
}

static inline uint64_t read_msr(uint32_t msr) {
  uint32_t low, high;
  __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
  return (uint64_t)high << 32 | low;
}
static inline void write_msr(uint32_t msr, uint64_t value) {
  __asm__ volatile("wrmsr"
                   :
                   : "a"((uint32_t)value), "d"((uint32_t)(value >> 32)), "c"(msr)
                   : "memory");
}

static inline uint64_t read_tsc(void) {
  uint32_t low, high;
  __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
  return (uint64_t)high << 32 | low;
}

#define VMM_READ_CONTROL_REGISTER(name)                     \
  static inline uint64_t read_##name(void) {                \
    uint64_t value;                                         \
    __asm__ volatile("movq %%" #name ", %0" : "=r"(value)); \
    return value;                                           \
  }
VMM_READ_CONTROL_REGISTER(cr0)
VMM_READ_CONTROL_REGISTER(cr2)
VMM_READ_CONTROL_REGISTER(cr3)
VMM_READ_CONTROL_REGISTER(cr4)
VMM_READ_CONTROL_REGISTER(cr8)

static inline void write_cr3(uint64_t value) {
  __asm__ volatile("movq %0, %%cr3" : : "r"(value) : "memory");
}

static inline void pause_cpu(void) { __asm__ volatile("pause" : : : "memory"); }
static inline void enable_interrupts(void) { __asm__ volatile("sti" : : : "memory"); }
static inline void disable_interrupts(void) { __asm__ volatile("cli" : : : "memory"); }
// The interrupt that comes between the two instructions is held back until the second one: no
// wake-up is lost (SDM volume 2, STI).
static inline void enable_interrupts_and_halt(void) {
  __asm__ volatile("sti\n\thlt" : : : "memory");
}

struct __attribute__((packed)) TableRegister {
  uint16_t limit;
  uint64_t base;
};
static inline void load_idt(const struct TableRegister* r) {
  __asm__ volatile("lidt %0" : : "m"(*r) : "memory");
}
static inline struct TableRegister store_gdt(void) {
  struct TableRegister r;
  __asm__ volatile("sgdt %0" : "=m"(r));
  return r;
}
static inline struct TableRegister store_idt(void) {
  struct TableRegister r;
  __asm__ volatile("sidt %0" : "=m"(r));
  return r;
}
static inline uint64_t read_flags(void) {
  uint64_t value;
  __asm__ volatile("pushfq\n\tpopq %0" : "=r"(value));
  return value;
}

// start.S
_Noreturn void halt_forever(void);
_Noreturn void restart_on_fresh_stack(void (*function)(void));
