// Request numbers of <linux/kvm.h> that a C++ compiler gets wrong.
//
// Some of the header's structures end in a flexible array that older headers wrap in an empty
// structure: size 0 in C, size 1 in C++. The size is part of the request number, so the kernel
// answers EINVAL. Here each such request is put together from the size that C sees, and the numbers
// are checked against the kernel's ABI.
#pragma once

#include <linux/kvm.h>
#include <sys/ioctl.h>

#include <cstddef>

namespace vmm::kvm {

// Bytes before the flexible array, as C lays it out: in C++ the empty structure moves the array
// itself, too.
inline constexpr std::size_t kCpuidHead = offsetof(kvm_cpuid2, padding) + sizeof(__u32);
inline constexpr std::size_t kMsrListHead = offsetof(kvm_msr_list, nmsrs) + sizeof(__u32);
inline constexpr std::size_t kMsrsHead = offsetof(kvm_msrs, pad) + sizeof(__u32);
inline constexpr std::size_t kRoutingHead = offsetof(kvm_irq_routing, flags) + sizeof(__u32);
inline constexpr std::size_t kSignalMaskHead = offsetof(kvm_signal_mask, len) + sizeof(__u32);

inline constexpr unsigned long kGetSupportedCpuid =
    _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0x05, kCpuidHead);
inline constexpr unsigned long kGetMsrIndexList =
    _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0x02, kMsrListHead);
inline constexpr unsigned long kSetCpuid2 = _IOC(_IOC_WRITE, KVMIO, 0x90, kCpuidHead);
inline constexpr unsigned long kGetCpuid2 = _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0x91, kCpuidHead);
inline constexpr unsigned long kGetMsrs = _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0x88, kMsrsHead);
inline constexpr unsigned long kSetMsrs = _IOC(_IOC_WRITE, KVMIO, 0x89, kMsrsHead);
inline constexpr unsigned long kSetGsiRouting = _IOC(_IOC_WRITE, KVMIO, 0x6a, kRoutingHead);
inline constexpr unsigned long kSetSignalMask = _IOC(_IOC_WRITE, KVMIO, 0x8b, kSignalMaskHead);

// The FPU state: 4096 bytes, and a flexible array since KVM_GET_XSAVE2 may return more.
inline constexpr std::size_t kXsaveHead = sizeof(kvm_xsave::region);
inline constexpr unsigned long kGetXsave = _IOC(_IOC_READ, KVMIO, 0xa4, kXsaveHead);
inline constexpr unsigned long kSetXsave = _IOC(_IOC_WRITE, KVMIO, 0xa5, kXsaveHead);
inline constexpr unsigned long kGetXsave2 = _IOC(_IOC_READ, KVMIO, 0xcf, kXsaveHead);

// Documentation/virt/kvm/api.rst and the C compiler agree on these.
static_assert(kGetSupportedCpuid == 0xc008ae05);
static_assert(kGetMsrIndexList == 0xc004ae02);
static_assert(kSetCpuid2 == 0x4008ae90);
static_assert(kGetCpuid2 == 0xc008ae91);
static_assert(kGetMsrs == 0xc008ae88);
static_assert(kSetMsrs == 0x4008ae89);
static_assert(kSetGsiRouting == 0x4008ae6a);
static_assert(kSetSignalMask == 0x4004ae8b);
static_assert(kGetXsave == 0x9000aea4);
static_assert(kSetXsave == 0x5000aea5);
static_assert(kGetXsave2 == 0x9000aecf);
// Requests without a flexible array, as a check that the header is the one that was meant.
static_assert(KVM_RUN == 0xae80);
static_assert(KVM_SET_USER_MEMORY_REGION == 0x4020ae46);
static_assert(KVM_GET_REGS == 0x8090ae81);
static_assert(KVM_GET_SREGS == 0x8138ae83);
static_assert(KVM_SET_GUEST_DEBUG == 0x4048ae9b);
static_assert(KVM_X86_SET_MSR_FILTER == 0x4188aec6);

}  // namespace vmm::kvm
