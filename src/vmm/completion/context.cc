#include "vmm/completion/context.h"

#include "vmm/x86/paging.h"

namespace vmm::completion {
namespace {

constexpr std::uint64_t kCr0Am = 1ULL << 18;

}  // namespace

Result<Context> Context::load(Cpu& cpu, const Surroundings& surroundings) {
  Context context(cpu, surroundings);
  context.registers = VMM_TRY(cpu.registers());
  context.system = VMM_TRY(cpu.system_registers());
  context.paging = x86::paging_context(context.registers, context.system);
  context.paging.physical_bits = surroundings.physical_bits;
  if (context.cr4(x86::kCr4Pke)) {
    const auto* const area = VMM_TRY(context.xsave());
    context.paging.pkru = pkru_of(*area, context.xsave_layout());
  }
  return context;
}

bool Context::alignment_checked() const noexcept {
  return cpl() == 3 && cr0(kCr0Am) && (registers.rflags & x86::kFlagAc) != 0;
}

Result<x86::XsaveArea*> Context::xsave() {
  if (!xsave_) xsave_ = VMM_TRY(cpu_->xsave());
  return &*xsave_;
}

Result<std::uint64_t> Context::xcr0() {
  if (!xcr0_) xcr0_ = VMM_TRY(cpu_->xcr0());
  return *xcr0_;
}

Result<void> Context::flush() {
  if (!xsave_changed_) return {};
  xsave_changed_ = false;
  return cpu_->set_xsave(*xsave_);
}

}  // namespace vmm::completion
