// An interrupt line that whoever has a descriptor drives: another thread of the program, another
// process, another VM (VmConfig::interrupt_eventfds, docs/irqchip.md).
#pragma once

#include <cstdint>
#include <memory>

#include "base/event_fd.h"

namespace vmm {

// Both descriptors may be handed to others; no signal is lost while one of them is open. Like the
// program's own devices they are not in Snapshot::config(): a machine that goes on from the
// snapshot of one that has some is given some, too, for a clone others than the original's.
struct InterruptEventFd {
  // An ISA interrupt or a pin of the I/O APIC, 0 to 23, but 2. It may have other sources.
  std::uint32_t irq = 0;
  // A signal raises the interrupt. Several of them before the guest takes it may become one.
  std::shared_ptr<const EventFd> trigger = {};
  // Without it the interrupt is an edge. With it the line is level-triggered, and up from a signal
  // of `trigger` until the guest ends the interrupt (EOI). Then this is signalled: whoever has
  // cause for an interrupt then, new or old, signals `trigger` again. It is signalled as well when
  // the machine was put elsewhere (Vm::reset_to()), and by KVM's chips when the guest unmasks a pin
  // that is up.
  std::shared_ptr<const EventFd> resample = {};
};

}  // namespace vmm
