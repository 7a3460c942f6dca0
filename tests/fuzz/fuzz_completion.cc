// Any instruction with any registers in any mode: decoding, operand resolution, rules and rebasing
// (docs/completion.md). The executor is a fake that scribbles over what it is given.
#include <algorithm>
#include <cstdint>
#include <string>
#include <variant>

#include "tests/fuzz/fuzz_input.h"
#include "tests/support/fakes/completion.h"
#include "vmm/completion/instruction.h"

namespace vmm::completion {
namespace {

using fuzz::require;

// The input, read from its front; past its end it is all zeros.
class Input {
 public:
  explicit Input(std::span<const std::uint8_t> rest) : rest_(rest) {}
  std::uint8_t u8() {
    if (rest_.empty()) return 0;
    const std::uint8_t value = rest_.front();
    rest_ = rest_.subspan(1);
    return value;
  }
  std::uint64_t u64() {
    std::uint64_t value = 0;
    for (unsigned i = 0; i < 8; ++i) value |= std::uint64_t{u8()} << (8 * i);
    return value;
  }
  std::span<const std::uint8_t> rest() const { return rest_; }

 private:
  std::span<const std::uint8_t> rest_;
};

// Values that mean something more often than chance would have it: addresses of RAM, of MMIO, at
// the ends of pages.
std::uint64_t pick(Input& input) {
  const std::uint8_t how = input.u8();
  switch (how & 7) {
    case 0:
      return 0;
    case 1:
      return 0x20000 + std::uint64_t{input.u8()} * 16;
    case 2:
      return 0x20fff - input.u8() % 64;
    case 3:
      return FakeGuest::kMmio + input.u8();
    case 4:
      return 0xfffff - input.u8();
    case 5:
      return ~0ULL - input.u8();
    default:
      return input.u64();
  }
}

void set_mode(FakeGuest& guest, std::uint8_t mode) {
  if ((mode & 3) == 1) guest.to_32bit();
  if ((mode & 3) == 2) {
    guest.to_32bit();
    guest.cpu.system.cs.default_big = false;
  }
  if ((mode & 3) == 3) {  // real mode
    guest.to_32bit();
    guest.cpu.system.cr0 = 0;
    guest.cpu.system.cs.default_big = false;
    guest.cpu.system.ds.limit = guest.cpu.system.es.limit = 0xffff;
  }
  if ((mode & 4) != 0) guest.to_user_mode();
  guest.cpu.regs.rflags = 2 | ((mode & 8) != 0 ? x86::kFlagAc : 0) |
                          ((mode & 16) != 0 ? x86::kFlagTf : 0) |
                          ((mode & 32) != 0 ? x86::kFlagIf : 0);
  if ((mode & 64) != 0) guest.cpu.system.cr4 |= x86::kCr4Smap | (1ULL << 16) | x86::kCr4Pke;
  if ((mode & 128) != 0) guest.cpu.xcr0_value = guest.cpu.xcr0_supported = 0xe7;
}

// The executor sees whole instructions and an operand that fits.
std::optional<JobException> scribble(Job& job) {
  require(job.code_size > 0 && job.code_size <= job.code.size());
  for (std::size_t at = 0; at < job.code_size;) {
    DecodeFailure why{};
    const auto code = Instruction::decode(std::span(job.code).first(job.code_size).subspan(at),
                                          CodeSize::k64, why);
    require(code.has_value());
    at += code->length();
  }
  require(job.operand.size() <= Executor::kMaxOperand && job.operand_offset < 4096);
  for (std::byte& b : job.operand) b ^= std::byte{0x5a};
  for (std::uint64_t& gpr : job.gpr) gpr += 0x0101;
  job.rflags = ~job.rflags;
  if (job.xsave != nullptr) (*job.xsave)[200] ^= std::byte{1};
  switch (job.gpr[0] & 15) {
    case 0:
      return JobException{0};
    case 1:
      return JobException{19};
    case 2:
      return JobException{14};
    default:
      return std::nullopt;
  }
}

void check(const FakeGuest& guest, const x86::Registers& before, const Outcome& outcome) {
  const x86::Registers& now = guest.cpu.regs;
  if (const auto* cannot = std::get_if<Cannot>(&outcome)) {
    require(now == before && !guest.cpu.event);
    require(!cannot->reason.empty() && !cannot->report.empty());
    return;
  }
  const std::uint64_t moved = (now.rip - before.rip) & 0xffffffff;
  require(moved <= 15);
  if (const auto* injected = std::get_if<Injected>(&outcome)) {
    require(guest.cpu.event && guest.cpu.event->vector == injected->vector);
    require(guest.cpu.event->software_interrupt || injected->vector < 32);
    require(moved != 0 || now.gpr == before.gpr);  // a fault leaves no trace
  }
}

void run(std::span<const std::uint8_t> data) {
  Input input(data);
  FakeGuest guest;
  set_mode(guest, input.u8());
  std::vector<std::uint8_t> code(15);
  std::generate(code.begin(), code.end(), [&] { return input.u8(); });
  const std::uint8_t given = input.u8();
  for (std::uint64_t& gpr : guest.cpu.regs.gpr) gpr = pick(input);
  guest.cpu.system.fs.base = pick(input);
  guest.cpu.system.ds.base = pick(input) & 0xfffff;
  const std::uint64_t masks = pick(input);
  guest.store_area<std::uint64_t>(1088 + 8, masks);
  guest.store_area<std::uint64_t>(512, 0xe7);
  const auto rest =
      std::as_bytes(input.rest()).first(std::min<std::size_t>(input.rest().size(), 4096));
  static_cast<void>(guest.memory.write(Gpa(0x20000), rest));
  // The bytes are in memory, too, at the end of a page now and then; KVM may have given fewer.
  if ((given & 0x80) != 0) guest.cpu.regs.rip = 0x10ff8;
  static_cast<void>(guest.memory.write(Gpa(guest.cpu.regs.rip), std::as_bytes(std::span(code))));
  if ((given & 0x40) != 0) guest.map(0x11, 0);
  code.resize(given & 15);
  guest.executor.action = scribble;
  guest.fast_paths = (given & 0x20) == 0;

  const x86::Registers before = guest.cpu.regs;
  check(guest, before, guest.complete(code));
}

}  // namespace
}  // namespace vmm::completion

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  vmm::completion::run({data, size});
  return 0;
}
