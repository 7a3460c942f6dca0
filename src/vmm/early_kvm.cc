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

EarlyKvm::EarlyKvm(std::string path) {
  thread_.run_elsewhere();
  vm_ = thread_.post([this, path = std::move(path)] { return open_and_create(path, system_); });
  cpuid_ = thread_.post([this]() -> Result<std::vector<kvm::CpuidEntry>> {
    if (system_ == nullptr) return {};
    return system_->supported_cpuid();
  });
}

Result<kvm::VmFd> EarlyKvm::take_vm() {
  if (!vm_.valid()) return fail(ErrorCode::kBadState, "This KVM is in use by another machine");
  return vm_.get();
}

}  // namespace vmm
