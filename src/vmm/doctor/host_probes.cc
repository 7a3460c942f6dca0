#include "vmm/doctor/host_probes.h"

#include <algorithm>
#include <array>

namespace vmm::doctor {
namespace {

using std::chrono::milliseconds;

constexpr std::uint32_t kMaxLoop = 1U << 20;
// Hardware, even slow or nested, needs a few nanoseconds; interpreters need hundreds.
constexpr double kInterpretedAbove = 60.0;

// Runs a program that is to end in a write of `expected` to kDonePort, at CPL 0.
Result<Finding> expect_done(ProbeGuest& guest, const ProbeProgram& program, std::uint8_t expected,
                            const char* success) {
  const ProbeOutcome outcome = VMM_TRY(guest.run(program));
  if (outcome.end == ProbeEnd::kDone && outcome.value == expected && outcome.cpl == 0) {
    return Finding{true, success};
  }
  if (outcome.end == ProbeEnd::kDone) {
    return Finding{false, fmt::format("it ended at CPL {} with the wrong result {}", outcome.cpl,
                                      outcome.value)};
  }
  return Finding{false, outcome.describe()};
}

}  // namespace

Result<double> probe_kernel_speed(ProbeGuest& guest, std::uint32_t instructions) {
  static constexpr std::array<std::uint8_t, 7> kCode{
      0xff, 0xc9,       // again: dec ecx
      0x75, 0xfc,       // jnz again
      0xe6, kDonePort,  // out kDonePort, al
      0xf4,             // hlt
  };
  const std::uint32_t loops = std::clamp(instructions, 2U, kMaxLoop) / 2;
  double best = 0;
  for (int run = 0; run < 3; ++run) {
    const ProbeOutcome outcome =
        VMM_TRY(guest.run({.code = kCode, .ecx = loops, .deadline = milliseconds(1000)}));
    if (outcome.end != ProbeEnd::kDone) {
      return fail(ErrorCode::kUnsupported, "A loop at CPL 0 does not run on this KVM: {}",
                  outcome.describe());
    }
    const double each = static_cast<double>(outcome.elapsed.count()) / (2.0 * loops);
    best = run == 0 ? each : std::min(best, each);
    // Fast cannot be a mistake, and clearly slow need not be measured again.
    if (best < kInterpretedAbove || best > 5 * kInterpretedAbove) break;
  }
  return best;
}

bool is_interpreted(double nanoseconds_per_instruction) noexcept {
  return nanoseconds_per_instruction > kInterpretedAbove;
}

Result<Finding> probe_breakpoint(ProbeGuest& guest) {
  static constexpr std::array<std::uint8_t, 4> kCode{
      0xcc,             // int3
      0xe6, kDonePort,  // out kDonePort, al
      0xf4,             // hlt
  };
  const ProbeOutcome outcome = VMM_TRY(guest.run({.code = kCode}));
  if (outcome.end == ProbeEnd::kException && outcome.value == 3) {
    return Finding{true, "the exception is delivered"};
  }
  return Finding{false, outcome.describe()};
}

Result<Finding> probe_popcnt(ProbeGuest& guest) {
  static constexpr std::array<std::uint8_t, 12> kCode{
      0xb8, 0x15,      0x00, 0x00, 0x00,  // mov eax, 0b10101
      0xf3, 0x0f,      0xb8, 0xc0,        // popcnt eax, eax
      0xe6, kDonePort,                    // out kDonePort, al
      0xf4,                               // hlt
  };
  return expect_done(guest, {.code = kCode}, 3, "it executes");
}

Result<Finding> probe_syscall(ProbeGuest& guest) {
  static constexpr std::array<std::uint8_t, 4> kUser{
      0x0f, 0x05,  // syscall
      0xeb, 0xfe,  // jmp $
  };
  static constexpr std::array<std::uint8_t, 5> kEntry{
      0xb0, 0x5c,       // mov al, 0x5c
      0xe6, kDonePort,  // out kDonePort, al
      0xf4,             // hlt
  };
  return expect_done(guest, {.mode = ProbeMode::kLongUser, .code = kUser, .syscall_entry = kEntry},
                     0x5c, "it enters CPL 0");
}

// A hypercall takes microseconds, and every start of a kernel on a host without them waits this
// long for one.
constexpr milliseconds kHypercallDeadline{2};

Result<Finding> probe_hypercall(ProbeGuest& guest) {
  static constexpr std::array<std::uint8_t, 13> kCode{
      0xb8, 0xff,      0x7f, 0x00, 0x00,  // mov eax, 0x7fff: a number that KVM does not know
      0x0f, 0x01,      0xc1,              // vmcall
      0xb0, 0x7a,                         // mov al, 0x7a
      0xe6, kDonePort,                    // out kDonePort, al
      0xf4,                               // hlt
  };
  return expect_done(guest, {.code = kCode, .deadline = kHypercallDeadline}, 0x7a, "it returns");
}

Result<Finding> probe_watchpoint(ProbeGuest& guest) {
  static constexpr std::array<std::uint8_t, 14> kCode{
      0x48,
      0x89,
      0x04,
      0x25,  // mov [kScratch], rax
      kScratch & 0xff,
      kScratch >> 8,
      0x00,
      0x00,  //   (its 32-bit address)
      0x90,
      0x90,
      0x90,  // nop: a watchpoint is a trap, it comes after
      0xe6,
      kDonePort,  // out kDonePort, al
      0xf4,       // hlt
  };
  const ProbeOutcome outcome = VMM_TRY(guest.run({.code = kCode, .watch_scratch = true}));
  if (outcome.end == ProbeEnd::kDebug) return Finding{true, "it stops the guest"};
  if (outcome.end == ProbeEnd::kDone) return Finding{false, "the write passed unnoticed"};
  return Finding{false, outcome.describe()};
}

Result<Finding> probe_paging32(ProbeGuest& guest) {
  static constexpr std::array<std::uint8_t, 11> kCode{
      0x8b, 0x05,      0x00, 0x90, 0x00, 0x00,  // mov eax, [kKernelCode]: through the page tables
      0xb0, 0x32,                               // mov al, 0x32
      0xe6, kDonePort,                          // out kDonePort, al
      0xf4,                                     // hlt
  };
  static_assert(kKernelCode == 0x9000);
  return expect_done(guest, {.mode = ProbeMode::kPagedProtected, .code = kCode}, 0x32, "it runs");
}

Result<double> probe_pio_cost(ProbeGuest& guest, std::uint32_t exits) {
  static constexpr std::array<std::uint8_t, 9> kCode{
      0xe6, kTickPort,  // again: out kTickPort, al
      0xff, 0xc9,       // dec ecx
      0x75, 0xfa,       // jnz again
      0xe6, kDonePort,  // out kDonePort, al
      0xf4,             // hlt
  };
  const std::uint32_t count = std::clamp(exits, 1U, kMaxLoop);
  const ProbeOutcome outcome =
      VMM_TRY(guest.run({.code = kCode, .ecx = count, .deadline = milliseconds(1000)}));
  if (outcome.end != ProbeEnd::kDone) {
    return fail(ErrorCode::kUnsupported, "Port writes do not work on this KVM: {}",
                outcome.describe());
  }
  return static_cast<double>(outcome.elapsed.count()) / count;
}

}  // namespace vmm::doctor
