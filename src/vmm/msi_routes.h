// Message-signalled interrupts to KVM's local APICs, by two ways (docs/irqchip.md):
//
//   any message     KVM_SIGNAL_MSI
//   a vector's own  an eventfd that KVM turns into the message: an irqfd on a GSI of its own
//
// The second needs an entry in KVM's GSI table, and each change of that waits for a grace period of
// the kernel. So a vector gets one when the same message has been sent kWorth times, on the event
// loop's thread; until then, and after any change of the message, the first way is taken. No exit
// waits, and a guest that changes its messages all the time gets no routes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "base/result.h"
#include "devices/msi_route.h"
#include "vmm/event_loop.h"
#include "vmm/kvm/vm_fd.h"

namespace vmm {

// Thread-safe. Lock order: a device's lock, then this one's, which is a leaf and never held while
// KVM is asked.
class MsiRoutes final : public MsiRouter {
 public:
  static constexpr std::uint32_t kWorth = 32;

  // What KVM does. Any thread.
  struct Host {
    std::function<void(const MsiMessage&)> signal;
    // Replaces all routes to messages; GSIs are from `first_gsi` on.
    std::function<Result<void>(std::span<const kvm::GsiRoute>)> set_routes;
    std::function<Result<void>(int eventfd, std::uint32_t gsi)> attach;
    std::uint32_t first_gsi = 24;  // those below are pins
    std::size_t gsis = 0;          // how many there are; 0: none but KVM_SIGNAL_MSI is used
  };

  MsiRoutes(Host host, EventLoop& loop);
  ~MsiRoutes() override;
  MsiRoutes(const MsiRoutes&) = delete;
  MsiRoutes& operator=(const MsiRoutes&) = delete;

  std::unique_ptr<MsiRoute> make_route() override;

 private:
  class State;  // shared with routes and with calls posted to the event loop
  class Route;
  std::shared_ptr<State> state_;
};

}  // namespace vmm
