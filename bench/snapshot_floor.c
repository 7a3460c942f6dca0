#include "snapshot_floor.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

enum { kLoadAddress = 0x1000, kDebugExit = 0xf4, kMostMsrs = 16, kMostLeaves = 256 };

// What a 64-bit guest's CPU is entered and left by, and its clocks.
static const unsigned kMsrs[] = {0x10,       0x174,      0x175,      0x176,
                                 0x277,      0x1a0,      0xc0000081, 0xc0000082,
                                 0xc0000083, 0xc0000084, 0xc0000102, 0x4b564d01};

struct floor_vm {
  int kvm, vm, vcpu;
  unsigned char* memory;
  size_t memory_size;
  struct kvm_run* run;
  size_t run_size;
};

struct msrs {
  struct kvm_msrs head;
  struct kvm_msr_entry entries[kMostMsrs];
};

struct floor_state {
  struct kvm_regs regs;
  struct kvm_sregs sregs;
  struct kvm_xsave xsave;
  struct kvm_debugregs debug;
  struct kvm_vcpu_events events;
  struct msrs msrs;
};

static int must(int result, const char* what) {
  if (result < 0) {
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    exit(1);
  }
  return result;
}

// The host's, read once: no machine that a real guest goes on in is without.
static struct kvm_cpuid2* supported_cpuid(int kvm) {
  static struct kvm_cpuid2* cpuid;
  if (cpuid) return cpuid;
  cpuid = calloc(1, sizeof *cpuid + kMostLeaves * sizeof(struct kvm_cpuid_entry2));
  must(cpuid ? 0 : -1, "memory");
  cpuid->nent = kMostLeaves;
  must(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid), "KVM_GET_SUPPORTED_CPUID");
  return cpuid;
}

struct floor_vm* floor_create(size_t memory, int fd, long offset, const void* code,
                              size_t code_size) {
  struct floor_vm* vm = calloc(1, sizeof *vm);
  must(vm ? 0 : -1, "memory");
  vm->kvm = must(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
  vm->vm = must(ioctl(vm->kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
  vm->memory_size = memory;
  vm->memory = mmap(NULL, memory, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_NORESERVE | (fd < 0 ? MAP_ANONYMOUS : 0), fd, offset);
  must(vm->memory == MAP_FAILED ? -1 : 0, "mmap of guest memory");
  struct kvm_userspace_memory_region slot = {.memory_size = memory,
                                             .userspace_addr = (unsigned long)vm->memory};
  must(ioctl(vm->vm, KVM_SET_USER_MEMORY_REGION, &slot), "KVM_SET_USER_MEMORY_REGION");
  if (code) memcpy(vm->memory + kLoadAddress, code, code_size);
  vm->vcpu = must(ioctl(vm->vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
  vm->run_size = (size_t)must(ioctl(vm->kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE");
  vm->run = mmap(NULL, vm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vm->vcpu, 0);
  must(vm->run == MAP_FAILED ? -1 : 0, "mmap of the vCPU");
  must(ioctl(vm->vcpu, KVM_SET_CPUID2, supported_cpuid(vm->kvm)), "KVM_SET_CPUID2");
  struct kvm_sregs sregs;
  must(ioctl(vm->vcpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
  sregs.cs.base = 0;
  sregs.cs.selector = 0;
  must(ioctl(vm->vcpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
  struct kvm_regs regs = {.rip = kLoadAddress, .rsp = kLoadAddress, .rflags = 2};
  must(ioctl(vm->vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
  return vm;
}

void floor_destroy(struct floor_vm* vm) {
  munmap(vm->run, vm->run_size);
  close(vm->vcpu);
  close(vm->vm);
  close(vm->kvm);
  munmap(vm->memory, vm->memory_size);
  free(vm);
}

unsigned char* floor_memory(struct floor_vm* vm) { return vm->memory; }

void floor_run(struct floor_vm* vm) {
  do {
    must(ioctl(vm->vcpu, KVM_RUN, 0), "KVM_RUN");
    if (vm->run->exit_reason != KVM_EXIT_IO) {
      fprintf(stderr, "floor: exit reason %u\n", vm->run->exit_reason);
      exit(1);
    }
  } while (vm->run->io.port != kDebugExit);
}

static int count_of_msrs(struct floor_vm* vm, struct msrs* msrs) {
  msrs->head.nmsrs = 0;
  for (size_t i = 0; i < sizeof kMsrs / sizeof kMsrs[0]; i++) {
    struct msrs one = {.head = {.nmsrs = 1}};
    one.entries[0].index = kMsrs[i];
    if (ioctl(vm->vcpu, KVM_GET_MSRS, &one) == 1)
      msrs->entries[msrs->head.nmsrs++] = one.entries[0];
  }
  return (int)msrs->head.nmsrs;
}

struct floor_state* floor_save(struct floor_vm* vm) {
  struct floor_state* state = calloc(1, sizeof *state);
  must(state ? 0 : -1, "memory");
  must(ioctl(vm->vcpu, KVM_GET_REGS, &state->regs), "KVM_GET_REGS");
  must(ioctl(vm->vcpu, KVM_GET_SREGS, &state->sregs), "KVM_GET_SREGS");
  must(ioctl(vm->vcpu, KVM_GET_XSAVE, &state->xsave), "KVM_GET_XSAVE");
  must(ioctl(vm->vcpu, KVM_GET_DEBUGREGS, &state->debug), "KVM_GET_DEBUGREGS");
  must(count_of_msrs(vm, &state->msrs), "KVM_GET_MSRS");
  must(ioctl(vm->vcpu, KVM_GET_VCPU_EVENTS, &state->events), "KVM_GET_VCPU_EVENTS");
  return state;
}

void floor_restore(struct floor_vm* vm, const struct floor_state* state) {
  must(ioctl(vm->vcpu, KVM_SET_SREGS, &state->sregs), "KVM_SET_SREGS");
  must(ioctl(vm->vcpu, KVM_SET_REGS, &state->regs), "KVM_SET_REGS");
  must(ioctl(vm->vcpu, KVM_SET_XSAVE, &state->xsave), "KVM_SET_XSAVE");
  must(ioctl(vm->vcpu, KVM_SET_MSRS, &state->msrs), "KVM_SET_MSRS");
  must(ioctl(vm->vcpu, KVM_SET_DEBUGREGS, &state->debug), "KVM_SET_DEBUGREGS");
  must(ioctl(vm->vcpu, KVM_SET_VCPU_EVENTS, &state->events), "KVM_SET_VCPU_EVENTS");
}
