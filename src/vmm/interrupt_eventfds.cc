#include "vmm/interrupt_eventfds.h"

#include <fmt/format.h>
#include <sys/epoll.h>

#include <utility>

#include "vmm/kvm/irqfd.h"

namespace vmm {

InterruptEventFds::InterruptEventFds(std::vector<InterruptEventFd> wanted, Host host)
    : wanted_(std::move(wanted)), host_(host), lines_(make_device<LevelLines>()) {
  lines_.with([this](const LevelLines& lines) { levels_ = &lines; });
}

InterruptEventFds::~InterruptEventFds() {
  for (const EventLoop::WatchId watch : watches_) host_.loop.unwatch(watch);
  for (const InterruptEventFd* interrupt : attached_) {
    kvm::detach_irqfd(host_.vm, interrupt->trigger->fd(), interrupt->irq);
  }
}

// The chip takes the level away at once, so that it does not interrupt again; the fabric, whose
// lock comes before the chip's, learns of it later. Other sources of the line that are still up are
// told again then.
bool InterruptEventFds::on_end(std::uint32_t gsi) const {
  if (!levels_->is_up(gsi)) return false;
  host_.loop.post([lines = lines_, gsi, &irqs = host_.irqs] {
    lines.with([gsi](LevelLines& all) { all.end(gsi); });
    irqs.replay();
  });
  return true;
}

// With KVM's chips KVM has the lines: here is only who wants to know that the machine was put
// elsewhere.
void InterruptEventFds::connect() {
  for (const InterruptEventFd& interrupt : wanted_) {
    if (interrupt.resample == nullptr) continue;
    const IrqLine out = host_.chips_in_kvm ? IrqLine() : host_.irqs.line(interrupt.irq);
    lines_.with([&](LevelLines& lines) {
      lines.add(interrupt.irq, out, [again = interrupt.resample] { again->signal(); });
    });
  }
}

Result<void> InterruptEventFds::start() {
  for (const InterruptEventFd& interrupt : wanted_) {
    VMM_TRY(with_context(host_.chips_in_kvm ? attach(interrupt) : watch(interrupt),
                         fmt::format("Join an eventfd to interrupt {}", interrupt.irq)));
  }
  return {};
}

Result<void> InterruptEventFds::attach(const InterruptEventFd& interrupt) {
  const int trigger = interrupt.trigger->fd();
  if (interrupt.resample == nullptr) {
    VMM_TRY(kvm::attach_irqfd(host_.vm, trigger, interrupt.irq));
  } else {
    VMM_TRY(kvm::attach_level_irqfd(host_.system, host_.vm, trigger, interrupt.resample->fd(),
                                    interrupt.irq));
  }
  attached_.push_back(&interrupt);
  return {};
}

std::function<void()> InterruptEventFds::raiser(const InterruptEventFd& interrupt) const {
  if (interrupt.resample == nullptr) {
    return [line = host_.irqs.line(interrupt.irq)]() mutable { line.pulse(); };
  }
  return [lines = lines_, irq = interrupt.irq] {
    lines.with([irq](LevelLines& all) { all.raise(irq); });
  };
}

Result<void> InterruptEventFds::watch(const InterruptEventFd& interrupt) {
  watches_.push_back(VMM_TRY(
      host_.loop.watch(interrupt.trigger->fd(), EPOLLIN,
                       [trigger = interrupt.trigger, raise = raiser(interrupt)](std::uint32_t) {
                         if (trigger->take() != 0) raise();
                       })));
  return {};
}

}  // namespace vmm
