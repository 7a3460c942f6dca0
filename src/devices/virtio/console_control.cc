// The control queues of a console device: VIRTIO 1.2, section 5.3.6.2.
#include <algorithm>
#include <array>
#include <utility>

#include "devices/virtio/console.h"

namespace vmm::virtio {
namespace {

constexpr std::size_t kMostMessage = sizeof(ConsoleMessage) + Console::kMostName;

ConsoleEvent event_of(Console::Due due) {
  switch (due) {
    case Console::kConsoleDue:
      return ConsoleEvent::kConsolePort;
    case Console::kNameDue:
      return ConsoleEvent::kPortName;
    case Console::kResizeDue:
      return ConsoleEvent::kResize;
    case Console::kOpenDue:
      return ConsoleEvent::kPortOpen;
    case Console::kAddDue:
    case Console::kAllDue:
      break;
  }
  return ConsoleEvent::kPortAdd;
}

}  // namespace

void Console::set_size(std::size_t port, ConsoleSize size) {
  if (sizes_[port] == size) return;
  sizes_[port] = size;
  // With MULTIPORT a message says it, for each console (section 5.3.5).
  if (port == first_console_ && !has(kMultiport)) host().config_changed();
  if (is_console(port) && size.known()) owe(port, kResizeDue);
}

void Console::set_host_open(std::size_t port, bool open) {
  host_open_[port] = open;
  settle_host_open(port);
}

void Console::settle_host_open(std::size_t port) {
  PortState& state = s_.ports[port];
  const bool open = host_open_[port] || !state.input.empty();
  if (std::exchange(state.host_open, open) != open) owe(port, kOpenDue);
}

// A driver that does not know the port yet hears of all this when it does.
void Console::owe(std::size_t port, unsigned due) {
  PortState& state = s_.ports[port];
  if (!host().active() || !has(kMultiport) || (!state.ready && due != kAddDue)) return;
  state.due = static_cast<std::uint8_t>(state.due | due);
  host().ring(kControlReceive);
}

bool Console::take_messages() {
  return drain(kControlTransmit, chain_, [this](const Chain& chain) {
    ConsoleMessage message;
    if (ChainReader(host().memory(), chain).read(message)) {
      handle(message);
    } else {
      ++counters_.malformed;
    }
    host().queue(kControlTransmit).push_used(chain, 0);
  });
}

void Console::handle(const ConsoleMessage& message) {
  const bool yes = message.value != 0;
  const auto event = static_cast<ConsoleEvent>(std::uint16_t{message.event});
  if (event == ConsoleEvent::kDeviceReady) {
    // One that has given up hears no more.
    for (std::size_t port = 0; port < ports_.size(); ++port) {
      if (!yes) s_.ports[port].due = 0;
      if (yes && !s_.ports[port].ready) owe(port, kAddDue);
    }
    return;
  }
  const auto port = port_of(message.port);
  if (!port) {
    ++counters_.malformed;
    return;
  }
  PortState& state = s_.ports[*port];
  if (event == ConsoleEvent::kPortReady) {
    state.ready = yes;
    state.open = state.open && yes;
    if (!yes) state.due = 0;
    if (!yes) return;
    state.host_open = host_open_[*port] || !state.input.empty();
    owe(*port, is_console(*port) ? kConsoleDue : kNameDue);
    if (is_console(*port) && sizes_[*port].known()) owe(*port, kResizeDue);
    owe(*port, kOpenDue);
  } else if (event == ConsoleEvent::kPortOpen && state.ready) {
    state.open = yes;
    tell_of_input_space(*port);
  } else {
    ++counters_.malformed;
  }
}

std::span<const std::byte> Console::next_message(std::span<std::byte> room, std::size_t& port,
                                                 Due& due) const {
  const auto waiting = std::find_if(s_.ports.begin(), s_.ports.end(),
                                    [](const PortState& state) { return state.due != 0; });
  if (waiting == s_.ports.end()) return {};
  port = static_cast<std::size_t>(waiting - s_.ports.begin());
  due = static_cast<Due>(waiting->due & (~unsigned{waiting->due} + 1));  // the lowest bit
  ConsoleMessage message;
  message.port = number_of(port);
  message.event = static_cast<std::uint16_t>(event_of(due));
  message.value = static_cast<std::uint16_t>(due == kOpenDue ? s_.ports[port].host_open : true);
  std::span<const std::byte> tail;
  ConsoleResize resize;
  if (due == kResizeDue) {
    resize.columns = sizes_[port].columns;
    resize.rows = sizes_[port].rows;
    tail = std::as_bytes(std::span(&resize, 1));
  } else if (due == kNameDue) {
    tail = std::as_bytes(std::span(ports_[port].name))
               .first(std::min(ports_[port].name.size(), kMostName));
  }
  const auto head = std::as_bytes(std::span(&message, 1));
  std::copy(head.begin(), head.end(), room.begin());
  std::copy(tail.begin(), tail.end(), room.begin() + static_cast<std::ptrdiff_t>(head.size()));
  return room.first(head.size() + tail.size());
}

bool Console::send_messages() {
  Queue& queue = host().queue(kControlReceive);
  queue.disable_notifications();  // buffers are of interest only while messages wait for them
  std::array<std::byte, kMostMessage> room;
  std::uint32_t left = queue.size();
  std::size_t port = 0;
  Due due = kAllDue;
  for (auto message = next_message(room, port, due); !message.empty();
       message = next_message(room, port, due)) {
    if (left == 0) return true;
    if (!queue.pop(chain_)) {
      if (!queue.enable_notifications()) break;
      continue;
    }
    --left;
    ChainWriter writer(host().memory(), chain_);
    if (writer.remaining() < message.size()) {
      ++counters_.malformed;  // the next buffer may be larger
    } else {
      writer.write(message);
      s_.ports[port].due = static_cast<std::uint8_t>(s_.ports[port].due & ~due);
    }
    queue.push_used(chain_, writer.written());
  }
  return false;
}

}  // namespace vmm::virtio
