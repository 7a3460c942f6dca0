// The executor of real machines: a second, tiny virtual machine whose one vCPU stands in 64-bit
// code at CPL 3 and runs one instruction after another on a copy of the guest's registers and
// operand.
//
// Its memory holds nothing of the host's or of the guest's, so that whatever the instruction does,
// it does it to 64 KiB that are written anew for each job. Exceptions end in stubs that report the
// vector; no signal handler is involved (docs/completion.md).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "vmm/completion/executor.h"
#include "vmm/kvm/system.h"

namespace vmm::completion {

// Costs nothing until the first job. Used by one thread at a time.
class Sandbox final : public Executor {
 public:
  // `system` is borrowed and outlives the sandbox.
  explicit Sandbox(const kvm::System& system);
  ~Sandbox() override;

  Result<std::optional<JobException>> run(Job& job) override;
  std::uint32_t operand_address(std::uint32_t offset) const noexcept override;

 private:
  class Machine;
  const kvm::System& system_;
  std::unique_ptr<Machine> machine_;
};

}  // namespace vmm::completion
