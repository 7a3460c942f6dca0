// The way of all devices' messages to the local APICs, which writes each down on its way.
#pragma once

#include <cstdint>
#include <memory>

#include "devices/event_log.h"
#include "devices/irq.h"
#include "devices/msi_route.h"

namespace vmm {

// Thread-safe as what it leads to is.
class LoggedMessages final : public MsiSink, public MsiRouter {
 public:
  // Borrowed; `router` may be null. Routes outlive this, but not the log.
  LoggedMessages(EventLog& log, MsiSink& sink, MsiRouter* router)
      : log_(log), sink_(sink), router_(router) {}

  void send(std::uint64_t address, std::uint32_t data) override {
    log_.message(address, data);
    sink_.send(address, data);
  }
  std::unique_ptr<MsiRoute> make_route() override {
    auto route = router_ == nullptr ? nullptr : router_->make_route();
    return route == nullptr ? nullptr : std::make_unique<Route>(log_, std::move(route));
  }

 private:
  class Route final : public MsiRoute {
   public:
    Route(EventLog& log, std::unique_ptr<MsiRoute> way) : log_(log), way_(std::move(way)) {}
    void send(const MsiMessage& message) override {
      log_.message(message.address, message.data);
      way_->send(message);
    }

   private:
    EventLog& log_;
    const std::unique_ptr<MsiRoute> way_;
  };

  EventLog& log_;
  MsiSink& sink_;
  MsiRouter* const router_;
};

}  // namespace vmm
