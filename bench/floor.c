// The floor: the least that a program can do to run a flat guest, with the bare ioctls. What vmm is
// measured against (docs/benchmarks.md).
//
//   floor [--irqchip] [--cpuid] [--mem MIB] [--steps N] IMAGE
//
// IMAGE is put at 0x1000 and entered there in real mode. Bytes that the guest writes to COM1 go to
// stdout; a write to port 0xf4 ends the program; everything else is ignored, reads give all ones.
//   --irqchip  with the chips in the kernel: PIC, I/O APIC, local APIC, PIT
//   --cpuid    with the host's supported CPUID: a guest that switches to long mode itself needs it
//   --steps    after the guest's first byte N instructions are executed one by one, the nanoseconds
//   of one are
//              printed, and that is the end
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { kLoadAddress = 0x1000, kCom1 = 0x3f8, kCom1LineStatus = 0x3fd, kDebugExit = 0xf4 };

static int must(int result, const char* what) {
  if (result < 0) {
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    exit(1);
  }
  return result;
}

static void set_supported_cpuid(int kvm, int vcpu) {
  enum { kMaxEntries = 256 };
  struct kvm_cpuid2* cpuid =
      calloc(1, sizeof *cpuid + kMaxEntries * sizeof(struct kvm_cpuid_entry2));
  must(cpuid ? 0 : -1, "memory for CPUID");
  cpuid->nent = kMaxEntries;
  must(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid), "KVM_GET_SUPPORTED_CPUID");
  must(ioctl(vcpu, KVM_SET_CPUID2, cpuid), "KVM_SET_CPUID2");
  free(cpuid);
}

// One port access; returns 0 when the guest asked for the end.
static int handle_io(const struct kvm_run* run, unsigned char* data) {
  const size_t size = (size_t)run->io.size * run->io.count;
  if (run->io.direction == KVM_EXIT_IO_IN) {
    memset(data, run->io.port == kCom1LineStatus ? 0x60 : 0xff, size);
  } else if (run->io.port == kCom1) {
    must(write(1, data, size) < 0 ? -1 : 0, "write to stdout");
  } else if (run->io.port == kDebugExit) {
    return 0;
  }
  return 1;
}

static double nanoseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static void step(int vcpu, const struct kvm_run* run, unsigned long steps) {
  const struct kvm_guest_debug debug = {.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP};
  must(ioctl(vcpu, KVM_SET_GUEST_DEBUG, &debug), "KVM_SET_GUEST_DEBUG");
  const double begin = nanoseconds();
  for (unsigned long i = 0; i < steps; i++) {
    must(ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");
    if (run->exit_reason != KVM_EXIT_DEBUG) {
      fprintf(stderr, "floor: exit reason %u after a step\n", run->exit_reason);
      exit(1);
    }
  }
  printf("%.1f\n", (nanoseconds() - begin) / (double)steps);
}

int main(int argc, char** argv) {
  int irqchip = 0, cpuid = 0;
  unsigned long steps = 0;
  size_t memory_size = (size_t)512 << 20;
  const char* image = NULL;
  for (int i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "--irqchip")) {
      irqchip = 1;
    } else if (!strcmp(argv[i], "--cpuid")) {
      cpuid = 1;
    } else if (!strcmp(argv[i], "--mem") && i + 1 < argc) {
      memory_size = strtoul(argv[++i], NULL, 10) << 20;
    } else if (!strcmp(argv[i], "--steps") && i + 1 < argc) {
      steps = strtoul(argv[++i], NULL, 10);
    } else {
      image = argv[i];
    }
  }
  if (!image || memory_size == 0 || memory_size > (size_t)3 << 30) {
    fprintf(stderr,
            "usage: floor [--irqchip] [--cpuid] [--mem MIB (1 to 3072)] [--steps N] IMAGE\n");
    return 2;
  }

  const int kvm = must(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
  const int vm = must(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
  if (irqchip) {
    // In this order on purpose: it is how most programs do it, and a memory slot that comes after
    // the chips waits for the readers of the I/O bus.
    struct kvm_pit_config pit = {0};
    must(ioctl(vm, KVM_CREATE_IRQCHIP, 0), "KVM_CREATE_IRQCHIP");
    must(ioctl(vm, KVM_CREATE_PIT2, &pit), "KVM_CREATE_PIT2");
  }
  unsigned char* memory = mmap(NULL, memory_size, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  must(memory == MAP_FAILED ? -1 : 0, "mmap of guest memory");
  struct kvm_userspace_memory_region slot = {.memory_size = memory_size,
                                             .userspace_addr = (unsigned long)memory};
  must(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot), "KVM_SET_USER_MEMORY_REGION");

  const int file = must(open(image, O_RDONLY | O_CLOEXEC), image);
  must(read(file, memory + kLoadAddress, memory_size - kLoadAddress) > 0 ? 0 : -1, image);
  close(file);

  const int vcpu = must(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
  const int run_size = must(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE");
  struct kvm_run* run = mmap(NULL, (size_t)run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
  must(run == MAP_FAILED ? -1 : 0, "mmap of the vCPU");
  if (cpuid) set_supported_cpuid(kvm, vcpu);
  struct kvm_sregs sregs;
  must(ioctl(vcpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
  sregs.cs.base = 0;
  sregs.cs.selector = 0;
  must(ioctl(vcpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
  struct kvm_regs regs = {.rip = kLoadAddress, .rsp = kLoadAddress, .rflags = 2};
  must(ioctl(vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");

  for (;;) {
    must(ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");
    switch (run->exit_reason) {
      case KVM_EXIT_IO:
        if (steps != 0 && run->io.port == kCom1) {
          step(vcpu, run, steps);
          return 0;
        }
        if (!handle_io(run, (unsigned char*)run + run->io.data_offset)) return 0;
        break;
      case KVM_EXIT_MMIO:
        if (!run->mmio.is_write) memset(run->mmio.data, 0xff, sizeof run->mmio.data);
        break;
      default:
        fprintf(stderr, "floor: exit reason %u at the end\n", run->exit_reason);
        return 1;
    }
  }
}
