// The two 8259A, the I/O APIC and the 8254, in KVM's form and in that of this process's chips.
#pragma once

#include "devices/ioapic.h"
#include "devices/pic8259.h"
#include "devices/pit8254.h"
#include "vmm/kvm/chip_state.h"

namespace vmm::kvm {

struct OwnChips {
  Pic8259::State pic;
  Ioapic::State ioapic;
  Pit8254::State pit;
};

// `now`: of the guest's clock, as the PIT's state has it. `replaced`: an HPET stands in for the
// PIT. Errors: kUnsupported, the PIT was being programmed.
Result<ChipState> chips_to_kvm(const OwnChips& chips, PitTick now, bool replaced);

// The state is untrusted. Errors: kBadState, it is none of these chips'; kUnsupported, an interrupt
// of a level-triggered pin was on its way.
Result<OwnChips> chips_from_kvm(const ChipState& chips, PitTick now);

}  // namespace vmm::kvm
