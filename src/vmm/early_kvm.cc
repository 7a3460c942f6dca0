#include "vmm/early_kvm.h"

#include <utility>

namespace vmm {
namespace {

Result<kvm::VmFd> open_and_create(const std::string& path,
                                  std::shared_ptr<const kvm::System>& system) {
  system = std::make_shared<const kvm::System>(VMM_TRY(kvm::System::open(path)));
  return system->create_vm();
}

}  // namespace

EarlyKvm::EarlyKvm(std::string path)
    : work_("early-kvm", [this, path = std::move(path)] { return work(path); }) {}

Result<std::vector<kvm::CpuidEntry>> EarlyKvm::work(const std::string& path) {
  Result<kvm::VmFd> vm = open_and_create(path, system_);
  const bool created = vm.has_value();
  promise_.set_value(std::move(vm));
  if (!created) return std::vector<kvm::CpuidEntry>();
  return system_->supported_cpuid();
}

Result<kvm::VmFd> EarlyKvm::take_vm() {
  if (!vm_.valid()) return fail(ErrorCode::kBadState, "This KVM is in use by another machine");
  return vm_.get();
}

}  // namespace vmm
