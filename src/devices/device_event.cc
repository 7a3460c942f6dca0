#include "devices/device_event.h"

#include <fmt/format.h>

namespace vmm {
namespace {

std::string given(const DeviceEvent& event, const std::string& what) {
  std::string text = fmt::format("vcpu{} irq {}", event.cpu, what);
  if (event.rip() != 0) text += fmt::format(" rip {:#x}", event.rip());
  if (!event.symbol.empty()) text += fmt::format(" <{}>", event.symbol);
  return text;
}

}  // namespace

std::string_view device_event_name(DeviceEventKind kind) noexcept {
  switch (kind) {
    case DeviceEventKind::kLine:
      return "line";
    case DeviceEventKind::kMessage:
      return "message";
    case DeviceEventKind::kInterrupt:
      return "interrupt";
    case DeviceEventKind::kNmi:
      return "nmi";
    case DeviceEventKind::kRequest:
      return "request";
    case DeviceEventKind::kAnswer:
      return "answer";
  }
  return "unknown";
}

std::string device_event_text(const DeviceEvent& event) {
  switch (event.kind) {
    case DeviceEventKind::kLine:
      return fmt::format("irq gsi {} {}", event.address, event.value != 0 ? "raised" : "lowered");
    case DeviceEventKind::kMessage:
      return fmt::format("irq message {:#x} data {:#x} vector {:#x}", event.address, event.value,
                         event.value & 0xff);
    case DeviceEventKind::kInterrupt:
      return given(event, fmt::format("vector {:#x}", event.value));
    case DeviceEventKind::kNmi:
      return given(event, "nmi");
    case DeviceEventKind::kRequest:
      return fmt::format("{} request queue {} head {}", event.device, event.queue, event.head);
    case DeviceEventKind::kAnswer:
      return fmt::format("{} answer queue {} head {} written {}", event.device, event.queue,
                         event.head, event.value);
  }
  return "unknown";
}

}  // namespace vmm
