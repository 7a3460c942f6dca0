#include "vmm/completion/sandbox.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "memory/guest_region.h"
#include "vmm/completion/sandbox_image.h"
#include "vmm/completion/xsave_layout.h"

namespace vmm::completion {
namespace {

// State components that the sandbox has: all that KVM offers but protection keys, which would act
// on the sandbox itself, and AMX, which needs the process's permission.
Result<std::uint64_t> offered_features(const kvm::System& system) {
  constexpr std::uint64_t kAmx = 3ULL << 17;
  for (const kvm::CpuidEntry& entry : VMM_TRY(system.supported_cpuid())) {
    if (entry.function != 0x0d || entry.index != 0) continue;
    const std::uint64_t offered = std::uint64_t{entry.edx} << 32 | entry.eax;
    return offered & ~(1ULL << kComponentPkru | kAmx);
  }
  return kFeatureX87 | kFeatureSse;
}

// Vectors that push an error code (SDM volume 3, table 6-1).
bool has_error_code(unsigned vector) noexcept {
  return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21;
}

}  // namespace

// The sandbox's virtual machine.
class Sandbox::Machine {
 public:
  static Result<std::unique_ptr<Machine>> create(const kvm::System& system);

  Result<std::optional<JobException>> run(Job& job);

 private:
  Machine(GuestRegion memory, kvm::VmFd vm, kvm::VcpuFd cpu)
      : memory_(std::move(memory)), vm_(std::move(vm)), cpu_(std::move(cpu)) {}

  std::span<std::byte> at(std::uint32_t address, std::size_t size) const noexcept {
    return {memory_.hva() + address, size};
  }
  Result<void> set_up(const kvm::System& system);
  // To kResume, at the start and after an exception.
  Result<void> rewind();
  void load(const Job& job);
  void store(Job& job);
  void load_fpu(const x86::XsaveArea& image);
  void store_fpu(x86::XsaveArea& image) const;
  // The port that the sandbox came out at.
  Result<std::uint16_t> run_to_port();
  Result<JobException> exception(Job& job, unsigned vector);

  // Order of destruction: vCPU, VM, memory.
  GuestRegion memory_;
  kvm::VmFd vm_;
  kvm::VcpuFd cpu_;
  sandbox::Slots slots_;
  x86::SystemRegisters start_;
  std::uint64_t features_ = 0;
  std::size_t area_size_ = 0;
};

Result<std::unique_ptr<Sandbox::Machine>> Sandbox::Machine::create(const kvm::System& system) {
  const auto range = GpaRange::create(Gpa(0), sandbox::kSize);
  auto memory = VMM_TRY(GuestRegion::create(*range, {}));
  auto vm = VMM_TRY(system.create_vm());
  VMM_TRY(vm.set_slot({0, *range, memory.hva()}));
  auto cpu = VMM_TRY(vm.create_vcpu(0));
  std::unique_ptr<Machine> machine(new Machine(std::move(memory), std::move(vm), std::move(cpu)));
  VMM_TRY(machine->set_up(system));
  return machine;
}

Result<void> Sandbox::Machine::set_up(const kvm::System& system) {
  slots_ = sandbox::build(at(0, sandbox::kSize));
  // CPUID first: it decides which bits the control registers may have.
  const auto cpuid = VMM_TRY(system.supported_cpuid());
  VMM_TRY(cpu_.set_cpuid(cpuid));
  start_ = sandbox::system_registers(VMM_TRY(cpu_.system_registers()));
  VMM_TRY(rewind());
  features_ = VMM_TRY(offered_features(system));
  VMM_TRY(cpu_.set_xcr0(features_));
  area_size_ = XsaveLayout::host().standard_size(features_);
  if (area_size_ > sandbox::kXsaveAreaSize) {
    return fail(ErrorCode::kUnsupported,
                "The processor's XSAVE area of {} bytes does not fit into the sandbox", area_size_);
  }
  return {};
}

Result<void> Sandbox::Machine::rewind() {
  VMM_TRY(cpu_.set_system_registers(start_));
  return cpu_.set_registers(sandbox::registers());
}

void Sandbox::Machine::load_fpu(const x86::XsaveArea& image) {
  const auto area = at(sandbox::kXsaveArea, area_size_);
  std::memcpy(area.data(), image.data(), std::min(area.size(), image.size()));
  std::uint64_t in_use = 0;
  std::memcpy(&in_use, area.data() + kXsaveXstateBv, sizeof in_use);
  in_use &= features_;
  std::memcpy(area.data() + kXsaveXstateBv, &in_use, sizeof in_use);
  std::fill_n(area.data() + kXsaveXcompBv, kXsaveHeaderEnd - kXsaveXcompBv, std::byte{0});
}

void Sandbox::Machine::store_fpu(x86::XsaveArea& image) const {
  const auto area = at(sandbox::kXsaveArea, area_size_);
  const auto before = xsave_field<std::uint64_t>(image, kXsaveXstateBv);
  const auto mask = xsave_field<std::uint32_t>(image, kXsaveMxcsrMask);
  // Components that the sandbox does not have went in with the others and come back unchanged.
  std::memcpy(image.data(), area.data(), std::min(area.size(), image.size()));
  const auto after = xsave_field<std::uint64_t>(image, kXsaveXstateBv);
  set_xsave_field(image, kXsaveXstateBv, (before & ~features_) | (after & features_));
  set_xsave_field(image, kXsaveMxcsrMask, mask);
}

void Sandbox::Machine::load(const Job& job) {
  sandbox::Block block;
  block.gpr = job.gpr;
  block.rflags = (job.rflags & (kJobFlags | x86::kFlagAc)) | 2 | x86::kFlagIopl;
  block.entry = job.xsave != nullptr ? sandbox::kFpuEntry : sandbox::kPlainEntry;
  block.xsave_mask = features_;
  std::memcpy(at(sandbox::kBlock, sizeof block).data(), &block, sizeof block);
  const auto slot = at(job.xsave != nullptr ? slots_.fpu : slots_.plain, sandbox::kSlotSize);
  std::fill(slot.begin(), slot.end(), std::byte{0x90});
  std::memcpy(slot.data(), job.code.data(), std::min<std::size_t>(job.code_size, slot.size()));
  if (job.xsave != nullptr) load_fpu(*job.xsave);
  std::copy(job.operand.begin(), job.operand.end(),
            at(sandbox::kOperand + job.operand_offset, job.operand.size()).begin());
}

void Sandbox::Machine::store(Job& job) {
  sandbox::Block block;
  std::memcpy(&block, at(sandbox::kBlock, sizeof block).data(), sizeof block);
  job.gpr = block.gpr;
  job.rflags = block.rflags;
  if (job.xsave != nullptr) store_fpu(*job.xsave);
  const auto operand = at(sandbox::kOperand + job.operand_offset, job.operand.size());
  std::copy(operand.begin(), operand.end(), job.operand.begin());
}

Result<std::uint16_t> Sandbox::Machine::run_to_port() {
  // Signals for this thread end KVM_RUN early; each comes once. More than this many is no accident.
  constexpr int kInterruptions = 10000;
  for (int i = 0; i < kInterruptions; ++i) {
    const VcpuExit exit = VMM_TRY(cpu_.run());
    if (std::holds_alternative<InterruptedExit>(exit)) continue;
    const auto* const pio = std::get_if<PioExit>(&exit);
    if (pio != nullptr && pio->is_write) return pio->port;
    return fail(ErrorCode::kIo, "The sandbox came back with a {} exit instead of its result",
                kExitNames[exit.index()]);
  }
  return fail(ErrorCode::kTimeout, "The sandbox was interrupted {} times in one instruction",
              kInterruptions);
}

Result<JobException> Sandbox::Machine::exception(Job& job, unsigned vector) {
  JobException exception{static_cast<std::uint8_t>(vector)};
  if (has_error_code(vector)) {
    // Below the five words that every exception pushes.
    std::memcpy(&exception.error_code, at(sandbox::kStackTop - 48, 4).data(), 4);
  }
  if (vector == static_cast<unsigned>(x86::Vector::kSimdError) && job.xsave != nullptr) {
    // Nothing was computed, but MXCSR says why.
    const x86::XsaveArea area = VMM_TRY(cpu_.xsave());
    set_xsave_field(*job.xsave, kXsaveMxcsr, xsave_field<std::uint32_t>(area, kXsaveMxcsr));
  }
  VMM_TRY(rewind());
  return exception;
}

Result<std::optional<JobException>> Sandbox::Machine::run(Job& job) {
  job.code_address = job.xsave != nullptr ? slots_.fpu : slots_.plain;
  load(job);
  const std::uint16_t port = VMM_TRY(run_to_port());
  if (port == sandbox::kDonePort) {
    store(job);
    return std::optional<JobException>();
  }
  if (port >= sandbox::kExceptionPort && port < sandbox::kExceptionPort + sandbox::kVectors) {
    return std::optional<JobException>(VMM_TRY(exception(job, port - sandbox::kExceptionPort)));
  }
  return fail(ErrorCode::kIo, "The sandbox came out at port {:#x}", port);
}

Sandbox::Sandbox(const kvm::System& system) : system_(system) {}
Sandbox::~Sandbox() = default;

Result<std::optional<JobException>> Sandbox::run(Job& job) {
  if (job.operand.size() > kMaxOperand || job.operand_offset >= 4096 ||
      job.code_size > sandbox::kSlotSize) {
    return fail(ErrorCode::kOutOfRange, "A job of {} operand bytes does not fit into the sandbox",
                job.operand.size());
  }
  if (machine_ == nullptr) {
    machine_ = VMM_TRY(with_context(Machine::create(system_), "Make the completion sandbox"));
  }
  auto result = machine_->run(job);
  // After a host failure nobody knows where the vCPU stands: the next job gets a new machine.
  if (!result) machine_.reset();
  return result;
}

std::uint32_t Sandbox::operand_address(std::uint32_t offset) const noexcept {
  return sandbox::kOperand + (offset & 0xfff);
}

}  // namespace vmm::completion
