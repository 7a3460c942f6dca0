#include "vmm/completion/run_ahead.h"

#include <algorithm>
#include <optional>
#include <span>
#include <vector>

#include "memory/page_walk.h"
#include "vmm/completion/data_access.h"
#include "vmm/completion/fast_paths.h"
#include "vmm/completion/fpu_checks.h"
#include "vmm/completion/native.h"
#include "vmm/completion/rebase.h"

namespace vmm::completion {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::size_t kWindow = 512;     // bytes that are looked at
constexpr std::uint32_t kMostJobs = 24;  // each is an exit of the sandbox

// The code at RIP: all of one page, because the next one may be elsewhere.
std::vector<std::uint8_t> code_window(const Context& context) {
  const bool is_64bit = context.system.code_is_64bit();
  const std::uint64_t base = is_64bit ? 0 : context.system.cs.base;
  const std::uint64_t linear = (base + context.registers.rip) & (is_64bit ? ~0ULL : 0xffffffffULL);
  const PageWalk walk = walk_pages(context.memory(), context.paging, Gva(linear),
                                   AccessKind::kFetch, WalkMarks::kAccessedAndDirty);
  if (!walk.mapped()) return {};
  std::vector<std::uint8_t> code(std::min<std::uint64_t>(kWindow, kPage - linear % kPage));
  if (!context.memory().read(walk.gpa, std::as_writable_bytes(std::span(code)))) return {};
  return code;
}

// The x87 unit remembers addresses of its instructions: those are left alone.
bool is_for_here(const Instruction& instruction) {
  const FpuUse use = fpu_use(instruction);
  return may_run_natively(instruction) && !is_atomic(instruction) && !use.x87 && !use.mmx;
}

// The instructions at RIP up to the last that KVM would stop at again.
Result<std::vector<Instruction>> straight_line(Context& context, std::uint32_t most) {
  const std::vector<std::uint8_t> code = code_window(context);
  const CodeSize size = code_size(context.system);
  std::vector<Instruction> line;
  std::size_t useful = 0;
  std::size_t at = 0;
  while (line.size() < most) {
    DecodeFailure why{};
    auto instruction = Instruction::decode(std::span(code).subspan(at), size, why);
    if (!instruction || !is_for_here(*instruction)) break;
    const bool vector = fpu_use(*instruction).any();
    if (vector && !VMM_TRY(check_fpu(context, *instruction)).done()) break;
    at += instruction->length();
    line.push_back(*std::move(instruction));
    if (vector) useful = line.size();
  }
  line.erase(line.begin() + static_cast<std::ptrdiff_t>(useful), line.end());
  return line;
}

void step_over(Context& context, std::uint64_t length) noexcept {
  const std::uint64_t next = context.registers.rip + length;
  context.registers.rip = context.system.code_is_64bit() ? next : next & 0xffffffff;
}

// Instructions without memory operands, which make one job.
class Group {
 public:
  // False: it does not belong to this group.
  bool add(const Instruction& instruction) {
    if (instruction.memory_operand_count() != 0) return false;
    const auto code = rebase(instruction, 0);
    if (!code || job_.code_size + code->size > Job::kMaxCode) return false;
    std::copy_n(code->bytes.begin(), code->size, job_.code.begin() + job_.code_size);
    job_.code_size = static_cast<std::uint8_t>(job_.code_size + code->size);
    length_ += instruction.length();
    vector_ = vector_ || fpu_use(instruction).any();
    return true;
  }

  // False: one of them raised an exception, and nothing has happened.
  Result<bool> run(Context& context) {
    x86::XsaveArea image;
    if (vector_) {
      image = *VMM_TRY(context.xsave());
      job_.xsave = &image;
    }
    job_.gpr = context.registers.gpr;
    job_.rflags = context.registers.rflags & kJobFlags;
    if (VMM_TRY(context.executor()->run(job_))) return false;
    context.registers.gpr = job_.gpr;
    context.registers.rflags =
        (context.registers.rflags & ~kStatusFlags) | (job_.rflags & kStatusFlags);
    if (vector_) {
      *VMM_TRY(context.xsave()) = image;
      context.mark_xsave_changed();
    }
    step_over(context, length_);
    return true;
  }

 private:
  Job job_;
  std::uint64_t length_ = 0;  // bytes of the guest's code
  bool vector_ = false;
};

// Device memory is KVM's to look at first: the device may be one of its own.
Result<bool> operand_is_ram(Context& context, const Instruction& instruction) {
  const ZydisDecodedOperand* const operand = instruction.memory_operand();
  if (operand == nullptr) return false;
  LinearOperand linear;
  if (!resolve_operand(context, instruction, *operand, operand->size / 8U, Direction::kRead, linear)
           .done()) {
    return false;
  }
  DataAccess access;
  const Step step = VMM_TRY(DataAccess::translate(context, linear, Direction::kRead, access));
  return step.done() && access.all_ram();
}

enum class Way : std::uint8_t { kFast, kNative, kNone };

// One instruction with a memory operand. kNone: it is the guest's, and nothing has happened.
Result<Way> run_one(Context& context, const Instruction& instruction) {
  if (!VMM_TRY(operand_is_ram(context, instruction))) return Way::kNone;
  const x86::Registers before = context.registers;
  Way way = Way::kFast;
  std::optional<Step> step = VMM_TRY(apply_fast_path(context, instruction));
  if (!step) {
    way = Way::kNative;
    step = VMM_TRY(run_natively(context, instruction));
  }
  if (!step->done()) {
    context.registers = before;
    return Way::kNone;
  }
  step_over(context, instruction.length());
  return way;
}

}  // namespace

Result<std::uint32_t> run_ahead(Context& context, std::uint32_t most) {
  const std::vector<Instruction> line = VMM_TRY(straight_line(context, most));
  std::size_t done = 0;
  for (std::uint32_t jobs = 0; done < line.size() && jobs < kMostJobs;) {
    Group group;
    std::size_t end = done;
    while (end < line.size() && group.add(line[end])) ++end;
    if (end > done) {
      if (!VMM_TRY(group.run(context))) break;
      done = end;
      ++jobs;
      continue;
    }
    const Way way = VMM_TRY(run_one(context, line[done]));
    if (way == Way::kNone) break;
    ++done;
    if (way == Way::kNative) ++jobs;
  }
  return static_cast<std::uint32_t>(done);
}

}  // namespace vmm::completion
