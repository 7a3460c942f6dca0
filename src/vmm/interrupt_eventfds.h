// The machine's side of InterruptEventFd. With KVM's own chips KVM watches the descriptors (irqfd,
// resample irqfd); with ours the event loop does.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/result.h"
#include "devices/device_ref.h"
#include "vmm/event_loop.h"
#include "vmm/interrupt_eventfd.h"
#include "vmm/irq_fabric.h"
#include "vmm/kvm/system.h"
#include "vmm/kvm/vm_fd.h"
#include "vmm/level_lines.h"

namespace vmm {

class InterruptEventFds {
 public:
  // Borrowed, all of them.
  struct Host {
    EventLoop& loop;
    IrqFabric& irqs;
    const kvm::System& system;
    const kvm::VmFd& vm;
    bool chips_in_kvm = false;
  };

  InterruptEventFds(std::vector<InterruptEventFd> wanted, Host host);
  ~InterruptEventFds();  // no signal is looked at any more
  InterruptEventFds(const InterruptEventFds&) = delete;
  InterruptEventFds& operator=(const InterruptEventFds&) = delete;

  // For the chips in this process (PcChips::set_level_end): whether `gsi` falls at the end of its
  // interrupt. What is left to do then is done on the event loop's thread. Any thread, locks held.
  bool on_end(std::uint32_t gsi) const;
  // Once the chips are in their place.
  void connect();
  // Once the machine is whole: signals are looked at from now on. Errors: what KVM or epoll
  // refuses.
  Result<void> start();
  // For the machine's list of devices.
  const DeviceHandle<LevelLines>& lines() const noexcept { return lines_; }

 private:
  Result<void> attach(const InterruptEventFd& interrupt);
  Result<void> watch(const InterruptEventFd& interrupt);
  std::function<void()> raiser(const InterruptEventFd& interrupt) const;

  const std::vector<InterruptEventFd> wanted_;
  const Host host_;
  const DeviceHandle<LevelLines> lines_;
  const LevelLines* levels_ = nullptr;  // the device behind it, for what needs no lock
  std::vector<EventLoop::WatchId> watches_;
  std::vector<const InterruptEventFd*> attached_;  // to KVM
};

}  // namespace vmm
