#include "vmm/kvm/system.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>

#include "vmm/kvm/flexible.h"
#include "vmm/kvm/ioctl.h"
#include "vmm/kvm/ioctl_numbers.h"

namespace vmm::kvm {
namespace {

constexpr std::uint32_t kMaxCpuidEntries = 1024;
constexpr std::uint32_t kMaxMsrs = 4096;

std::uint32_t at_least(int value, std::uint32_t floor) {
  return value > 0 ? std::max(static_cast<std::uint32_t>(value), floor) : floor;
}

int ask_extension(int kvm, int capability) noexcept {
  const auto answer = ioctl_value(kvm, KVM_CHECK_EXTENSION, static_cast<unsigned long>(capability),
                                  "KVM_CHECK_EXTENSION", "/dev/kvm");
  return answer ? *answer : 0;
}

struct Answers {
  Capabilities capabilities;
  std::size_t run_size = 0;  // bytes of a vCPU's shared mapping
};

// All of a KVM whose version is right. Errors: kNoKvm, it lacks what nobody can do without.
Result<Answers> ask_all(int kvm) {
  const auto extension = [kvm](int capability) { return ask_extension(kvm, capability); };
  const auto has = [&](int capability) { return extension(capability) > 0; };
  if (!has(KVM_CAP_USER_MEMORY)) return fail(ErrorCode::kNoKvm, "KVM lacks KVM_CAP_USER_MEMORY");
  Answers answers;
  Capabilities& c = answers.capabilities;
  c.immediate_exit = has(KVM_CAP_IMMEDIATE_EXIT);
  if (!c.immediate_exit) {
    return fail(ErrorCode::kNoKvm,
                "KVM lacks KVM_CAP_IMMEDIATE_EXIT (Linux 4.12 and later have it)");
  }
  c.irqchip = has(KVM_CAP_IRQCHIP);
  c.split_irqchip = has(KVM_CAP_SPLIT_IRQCHIP);
  c.pit2 = has(KVM_CAP_PIT2);
  c.irqfd = has(KVM_CAP_IRQFD);
  c.ioeventfd = has(KVM_CAP_IOEVENTFD);
  c.signal_msi = has(KVM_CAP_SIGNAL_MSI);
  c.tsc_deadline_timer = has(KVM_CAP_TSC_DEADLINE_TIMER);
  c.tsc_control = has(KVM_CAP_TSC_CONTROL);
  c.adjust_clock = has(KVM_CAP_ADJUST_CLOCK);
  c.exit_on_emulation_failure = has(KVM_CAP_EXIT_ON_EMULATION_FAILURE);
  c.user_space_msr = has(KVM_CAP_X86_USER_SPACE_MSR);
  c.msr_filter = has(KVM_CAP_X86_MSR_FILTER);
  c.guest_debug = has(KVM_CAP_SET_GUEST_DEBUG);
  c.guest_debug2 = at_least(extension(KVM_CAP_SET_GUEST_DEBUG2), 0);
  c.sync_registers = has(KVM_CAP_SYNC_REGS);
  c.xcrs = has(KVM_CAP_XCRS);
  c.set_tss_address = has(KVM_CAP_SET_TSS_ADDR);
  c.set_identity_map_address = has(KVM_CAP_SET_IDENTITY_MAP_ADDR);
  c.x2apic_api = has(KVM_CAP_X2APIC_API);
  c.smm = has(KVM_CAP_X86_SMM);
  c.nested = has(KVM_CAP_NESTED_STATE);
  c.pmu = has(KVM_CAP_PMU_CAPABILITY);
  c.read_only_memory = has(KVM_CAP_READONLY_MEM);
  c.dirty_log_ring = has(KVM_CAP_DIRTY_LOG_RING);
  c.xsave_size = at_least(extension(KVM_CAP_XSAVE2), 4096);
  c.memory_slots = at_least(extension(KVM_CAP_NR_MEMSLOTS), 32);
  c.max_vcpus = at_least(extension(KVM_CAP_MAX_VCPUS), at_least(extension(KVM_CAP_NR_VCPUS), 4));
  c.max_vcpu_id = at_least(extension(KVM_CAP_MAX_VCPU_ID), c.max_vcpus);
  const int size =
      VMM_TRY(ioctl_value(kvm, KVM_GET_VCPU_MMAP_SIZE, 0, "KVM_GET_VCPU_MMAP_SIZE", "/dev/kvm"));
  if (static_cast<std::size_t>(size) < sizeof(kvm_run)) {
    return fail(ErrorCode::kNoKvm, "KVM shares {} bytes with a vCPU, {} are needed", size,
                sizeof(kvm_run));
  }
  answers.run_size = static_cast<std::size_t>(size);
  return answers;
}

}  // namespace

Result<System> System::open(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!fd) {
    const int errnum = errno;
    std::string hint;
    if (errnum == ENOENT) {
      hint = " (is virtualization enabled, and the module kvm_intel, kvm_amd or kvm_pvm loaded?)";
    } else if (errnum == EACCES || errnum == EPERM) {
      hint = " (is this user in the group 'kvm'?)";
    }
    return tl::unexpected<Error>(
        Error::from_errno(errnum, ErrorCode::kNoKvm, fmt::format("Open {}{}", path, hint)));
  }
  System system(std::move(fd));
  VMM_TRY(with_context(system.check(), fmt::format("Use {}", path)));
  return system;
}

int System::extension(int capability) const noexcept {
  return ask_extension(fd_.get(), capability);
}

Result<void> System::check() {
  const auto version =
      ioctl_value(fd_.get(), KVM_GET_API_VERSION, 0, "KVM_GET_API_VERSION", "/dev/kvm");
  if (!version) return fail(ErrorCode::kNoKvm, "It is not a KVM device");
  if (*version != KVM_API_VERSION) {
    return fail(ErrorCode::kNoKvm, "KVM's API has version {}, this program needs {}", *version,
                KVM_API_VERSION);
  }
  // Each process asks once: thirty requests are a part of what a small machine costs.
  static const Result<Answers> first = ask_all(fd_.get());
  // A failure may have been a passing one: only a success is final.
  const Answers answers = VMM_TRY(first ? first : ask_all(fd_.get()));
  capabilities_ = answers.capabilities;
  run_size_ = answers.run_size;
  return {};
}

namespace {

Result<std::vector<CpuidEntry>> ask_supported_cpuid(int kvm) {
  for (std::uint32_t room = 128; room <= kMaxCpuidEntries; room *= 2) {
    CpuidTable table(room);
    table.head().nent = room;
    if (::ioctl(kvm, kGetSupportedCpuid, table.get()) == 0) {
      std::vector<CpuidEntry> entries;
      for (const kvm_cpuid_entry2& e : table.entries(std::min(table.head().nent, room))) {
        entries.push_back({e.function, e.index, (e.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) != 0,
                           e.eax, e.ebx, e.ecx, e.edx});
      }
      return entries;
    }
    if (errno != E2BIG) return fail_errno(errno, "KVM_GET_SUPPORTED_CPUID on /dev/kvm");
  }
  return fail(ErrorCode::kUnsupported, "KVM reports more than {} CPUID entries", kMaxCpuidEntries);
}

Result<std::vector<std::uint32_t>> ask_msr_indices(int kvm) {
  MsrList list(kMaxMsrs);
  list.head().nmsrs = kMaxMsrs;
  VMM_TRY(ioctl_pointer(kvm, kGetMsrIndexList, list.get(), "KVM_GET_MSR_INDEX_LIST", "/dev/kvm"));
  const auto entries = list.entries(std::min(list.head().nmsrs, kMaxMsrs));
  return std::vector<std::uint32_t>(entries.begin(), entries.end());
}

}  // namespace

Result<std::vector<CpuidEntry>> System::supported_cpuid() const {
  static const Result<std::vector<CpuidEntry>> first = ask_supported_cpuid(fd_.get());
  // A failure may have been a passing one: only a success is final.
  return first ? first : ask_supported_cpuid(fd_.get());
}

Result<std::vector<std::uint32_t>> System::msr_indices() const {
  static const Result<std::vector<std::uint32_t>> first = ask_msr_indices(fd_.get());
  return first ? first : ask_msr_indices(fd_.get());
}

Result<VmFd> System::create_vm() const {
  // Registering with the process's memory map gives up, before it has done anything, when the
  // thread has work of a signal's kind pending, blocked signals and all.
  int fd = -1;
  do {
    fd = ::ioctl(fd_.get(), KVM_CREATE_VM, 0);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) return fail_errno(errno, "KVM_CREATE_VM on /dev/kvm");
  return VmFd(UniqueFd(fd), run_size_, capabilities_.xsave_size);
}

}  // namespace vmm::kvm
