// Interrupt lines between devices and whatever controllers this machine has. The only place that
// knows GSI numbers.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "base/result.h"
#include "devices/event_log.h"
#include "devices/irq.h"

namespace vmm {

// A controller's inputs: what carries a level to the guest's interrupt controller. Any thread; a
// leaf in the lock order.
class IrqController {
 public:
  virtual ~IrqController() = default;
  virtual void set_gsi(std::uint32_t gsi, bool asserted) = 0;
};

// Wires device outputs to controller inputs; lines that share a GSI are wired-OR. Lives as long as
// the devices do.
class IrqFabric {
 public:
  IrqFabric() = default;
  explicit IrqFabric(std::unique_ptr<IrqController> controller)
      : controller_(std::move(controller)) {}

  // Before the first line() is asked for; without a controller every line leads nowhere. Changes of
  // inputs are written down in `log`, which is borrowed and may be null.
  void connect(std::unique_ptr<IrqController> controller, EventLog* log = nullptr) {
    controller_ = std::move(controller);
    log_ = log;
  }

  // A new source on this GSI. Any thread.
  IrqLine line(std::uint32_t gsi);
  // Raises an input that no device holds up, and lowers it again. Any thread, any time.
  void pulse(std::uint32_t gsi);
  // The controller has been reset: tells it of the inputs that are up. Any thread.
  void replay();
  // A new source that drives both.
  IrqLine line_to_both(std::uint32_t first, std::uint32_t second);

 private:
  struct Input {
    std::uint32_t gsi;
    std::uint32_t asserted_sources = 0;
  };
  class Source final : public IrqPin {
   public:
    Source(IrqFabric& fabric, std::vector<Input*> inputs)
        : fabric_(fabric), inputs_(std::move(inputs)) {}
    void set_level(bool asserted) override;

   private:
    IrqFabric& fabric_;
    const std::vector<Input*> inputs_;
    bool asserted_ = false;
  };

  // With the lock held, both.
  Input& input(std::uint32_t gsi);
  void tell_controller(std::uint32_t gsi, bool asserted);
  IrqLine add_source(std::vector<std::uint32_t> gsis);

  std::unique_ptr<IrqController> controller_;
  EventLog* log_ = nullptr;
  // Guards all below, levels and counts included, and orders what the controller sees.
  std::mutex mutex_;
  std::vector<std::unique_ptr<Input>> inputs_;
  std::vector<std::unique_ptr<Source>> sources_;
};

}  // namespace vmm
