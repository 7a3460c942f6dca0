// A KVM that stops code at CPL 3, for hosts whose own lets it run: a program that is linked with
// this has its KVM_RUN and KVM_SET_GUEST_DEBUG played while a Played lives, and everything else,
// registers included, is the host's. A guest executes NOP, INT3 and jumps to itself, where virtual
// addresses are physical ones.
#pragma once

#include <cstddef>

namespace vmm::test {

class SteppingKvm {
 public:
  // `memory` is the guest's, from address 0, and outlives this. One at a time.
  explicit SteppingKvm(const std::byte* memory);
  SteppingKvm(const SteppingKvm&) = delete;
  SteppingKvm& operator=(const SteppingKvm&) = delete;
  ~SteppingKvm();
};

}  // namespace vmm::test
