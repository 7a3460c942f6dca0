// KVM made ready on a thread of its own, while its user does something else.
#pragma once

#include <future>
#include <memory>
#include <string>
#include <vector>

#include "base/job_thread.h"
#include "base/result.h"
#include "vmm/kvm/system.h"

namespace vmm {

// Opens /dev/kvm, creates an empty VM in it and asks for the CPUID that KVM supports. None of this
// depends on what the machine will be, and together it is a third of what starting one costs: a
// program that begins it first, and reads its options and files meanwhile, starts that much sooner.
//
// For one machine, once. One thread uses it; the destructor waits for the work, and what nobody
// took is closed.
class EarlyKvm {
 public:
  // Begins at once; errors are kept for take_vm().
  explicit EarlyKvm(std::string path = "/dev/kvm");

  // Waits until the VM is there. Errors: as System::open() and System::create_vm(); kBadState when
  // the VM has been taken already.
  Result<kvm::VmFd> take_vm();
  // Not null after take_vm() succeeded.
  std::shared_ptr<const kvm::System> system() const { return system_; }
  // Waits until it has been asked for. Only after take_vm() succeeded, once. Errors: as
  // System::supported_cpuid().
  Result<std::vector<kvm::CpuidEntry>> supported_cpuid() { return cpuid_.get(); }
  // The thread, for more of what can be done beside other work: behind its own.
  JobThread& thread() noexcept { return thread_; }

 private:
  std::shared_ptr<const kvm::System> system_;  // set before vm_ is ready, then only read
  JobThread thread_{"early-kvm"};              // its jobs use what is above
  std::future<Result<kvm::VmFd>> vm_;
  std::future<Result<std::vector<kvm::CpuidEntry>>> cpuid_;
};

}  // namespace vmm
