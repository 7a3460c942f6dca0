// The state of a CPU while its kernel code is executed here, and what instructions do with it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>

#include "vmm/interpreter/device_access.h"
#include "vmm/interpreter/tlb.h"
#include "vmm/x86/msr_numbers.h"
#include "vmm/x86/registers.h"

namespace vmm::interpreter {

// How an instruction ended.
enum class Next : std::uint8_t {
  kOn,    // the next one of the line
  kJump,  // somewhere else, or the line has to be looked up again; Cpu::next_rip() says where
  kStop,  // it did nothing; Cpu::stop says what has to be done about it
};

enum class Stop : std::uint8_t {
  kKvm,        // KVM has to execute it
  kKvmToUser,  // the same; and it may go on at another privilege level
  kHalt,       // KVM has to execute it; it is HLT, which KVM does not report when it steps
  kPageFault,  // it faults: Cpu::fault
  kDevice,     // it accesses a device: Cpu::access
  kAgain,      // a part of it is done (a long string): time to look at interrupts
};

// What of a CPU lies in KVM and is asked for when an instruction needs it. Borrowed.
class HostState {
 public:
  virtual ~HostState() = default;
  // Nothing when the host does not have it.
  virtual std::optional<std::uint64_t> msr(std::uint32_t index) = 0;
  // Guest TSC minus host TSC.
  virtual std::optional<std::uint64_t> tsc_offset() = 0;
  // Whether accesses to this MSR are this process's to answer.
  virtual bool is_device_msr(std::uint32_t index) = 0;
  // Whether the guest was told of no hypercall, and KVM completes none.
  virtual bool has_no_hypercalls() = 0;
};

// RFLAGS beside those of x86/registers.h.
inline constexpr std::uint64_t kFlagPf = 1U << 2;
inline constexpr std::uint64_t kFlagAf = 1U << 4;
inline constexpr std::uint64_t kFlagSf = 1U << 7;
inline constexpr std::uint64_t kFlagDf = 1U << 10;
inline constexpr std::uint64_t kFlagOf = 1U << 11;
inline constexpr std::uint64_t kFlagNt = 1U << 14;
inline constexpr std::uint64_t kFlagVm = 1U << 17;
inline constexpr std::uint64_t kStatusFlags =
    x86::kFlagCf | kFlagPf | kFlagAf | x86::kFlagZf | kFlagSf | kFlagOf;

// The status flags as LAHF and SETO leave them in AX: CF, PF, AF, ZF and SF in AH at their places
// in RFLAGS, OF in AL. So the processor itself computes them (operations.h).
using Status = std::uint16_t;

constexpr Status to_status(std::uint64_t rflags) noexcept {
  return static_cast<Status>((rflags & (kStatusFlags ^ kFlagOf)) << 8 | (rflags >> 11 & 1));
}
constexpr std::uint64_t from_status(Status status) noexcept {
  return (status >> 8 & (kStatusFlags ^ kFlagOf)) | std::uint64_t{status & 1U} << 11;
}

// Whether condition `code` (SDM volume 1, appendix B) holds.
inline bool holds(Status status, unsigned code) noexcept {
  const bool of = (status & 1) != 0, cf = (status & 0x100) != 0, zf = (status & 0x4000) != 0;
  const bool sf = (status & 0x8000) != 0, pf = (status & 0x400) != 0;
  bool answer = false;
  switch (code >> 1) {
    case 0:
      answer = of;
      break;
    case 1:
      answer = cf;
      break;
    case 2:
      answer = zf;
      break;
    case 3:
      answer = cf || zf;
      break;
    case 4:
      answer = sf;
      break;
    case 5:
      answer = pf;
      break;
    case 6:
      answer = sf != of;
      break;
    default:
      answer = zf || sf != of;
      break;
  }
  return answer != ((code & 1) != 0);
}

struct PageFault {
  std::uint64_t address = 0;
  std::uint32_t error_code = 0;
};

// One CPU, in 64-bit code at CPL 0. Used by one thread.
struct Cpu {
  Cpu(Tlb& translations, HostState& host_state) : tlb(translations), host(host_state) {}

  // The register file: the sixteen general registers, then two that only addresses name.
  static constexpr std::uint8_t kZero = 16;     // always 0
  static constexpr std::uint8_t kNextRip = 17;  // behind the instruction
  std::array<std::uint64_t, 18> file{};
  std::uint64_t rip = 0;  // of the instruction
  Status status = 0;
  std::uint64_t other_flags = 2;                  // RFLAGS without the status flags
  std::array<std::uint64_t, 3> segment_base{};    // none, FS, GS
  bool shadow = false;                            // STI: the next instruction is not interrupted
  bool nmi_blocked = false;                       // until IRET
  std::optional<std::uint64_t> kernel_gs_base{};  // the MSR, once it has been asked for
  bool kernel_gs_changed = false;
  x86::SystemRegisters system{};  // FS and GS bases are above

  Stop stop = Stop::kKvm;
  // Of an instruction that is KVM's:
  bool keeps_translations = false;  // it changes none of them
  bool writes_msr = false;          // what is known of MSRs has to be asked for again
  PageFault fault{};
  Tlb::Table refused{};  // where it would have written into a page table
  DeviceAccess access{};
  bool answered = false;  // `access` has been: the instruction is executed again, with the answer

  Tlb& tlb;
  HostState& host;

  std::uint64_t& next_rip() noexcept { return file[kNextRip]; }
  std::uint64_t rflags() const noexcept { return other_flags | from_status(status); }
  void set_rflags(std::uint64_t value) noexcept {
    status = to_status(value);
    set_other_flags((value & ~kStatusFlags) | 2);
  }
  // AC decides what SMAP lets through.
  void set_other_flags(std::uint64_t value) noexcept {
    other_flags = value;
    tlb.set_alignment_check((value & x86::kFlagAc) != 0);
  }
  bool interrupts_on() const noexcept { return (other_flags & x86::kFlagIf) != 0; }

  // Ends the instruction as one that did nothing.
  Next leave(Stop why) noexcept {
    stop = why;
    keeps_translations = false;
    writes_msr = false;
    return Next::kStop;
  }
  // KVM has to execute it, and no translation changes by it.
  Next leave_harmless() noexcept {
    (void)leave(Stop::kKvm);
    keeps_translations = true;
    return Next::kStop;
  }
  // Ends it as one that waits for a device; a write has nothing left to do but to go on.
  Next leave(const DeviceAccess& to) noexcept {
    (void)leave_harmless();
    stop = Stop::kDevice;
    access = to;
    return Next::kStop;
  }
  // What a device has answered, once.
  template <class T>
  bool take_answer(T& value) noexcept {
    if (!answered) return false;
    answered = false;
    std::memcpy(&value, access.data.data(), sizeof value);
    return true;
  }
  // Ends it because memory could not be accessed.
  Next leave(const Tlb::Miss& miss) noexcept {
    if (miss.fault) {
      fault = {miss.address, miss.error_code};
      return leave(Stop::kPageFault);
    }
    return leave_harmless();
  }
};

}  // namespace vmm::interpreter
