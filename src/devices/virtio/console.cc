#include "devices/virtio/console.h"

#include <algorithm>
#include <utility>

#include "devices/state_io.h"

namespace vmm::virtio {
namespace {

constexpr std::uint32_t kEmergencyOffset = 8;
static_assert(offsetof(ConsoleConfig, emergency_write) == kEmergencyOffset);

std::optional<std::size_t> find_console(const std::vector<Console::Port>& ports) {
  const auto found = std::find_if(ports.begin(), ports.end(),
                                  [](const Console::Port& port) { return port.name.empty(); });
  if (found == ports.end()) return std::nullopt;
  return static_cast<std::size_t>(found - ports.begin());
}

// Port 0 can only be a console: without one, its queues lead nowhere.
std::vector<std::uint16_t> sizes_of_queues(std::size_t numbers, bool multiport) {
  std::vector<std::uint16_t> sizes(multiport ? 2 * (numbers + 1) : 2, Console::kQueueSize);
  if (multiport) {
    sizes[Console::kControlReceive] = sizes[Console::kControlTransmit] = Console::kControlSize;
  }
  return sizes;
}

}  // namespace

Result<void> Console::PortState::validate() const {
  if ((due & ~unsigned{kAllDue}) != 0 || input.size() > kInputSize) {
    return fail(ErrorCode::kBadState, "A console port waits with more than it can");
  }
  if (output && output->done > output->chain.readable_bytes()) {
    return fail(ErrorCode::kBadState, "A console port has sent more than it was given");
  }
  return {};
}

Console::Console(std::string id, std::vector<Port> ports)
    : id_(std::move(id)),
      ports_(std::move(ports)),
      first_console_(find_console(ports_)),
      multiport_(ports_.size() != 1 || !first_console_),
      queue_sizes_(sizes_of_queues(numbers(), multiport_)),
      sizes_(ports_.size()),
      host_open_(ports_.size(), true),
      refused_(ports_.size(), false) {
  s_ = power_on();
}

std::uint32_t Console::numbers() const noexcept {
  return static_cast<std::uint32_t>(ports_.size() + (first_console_ ? 0 : 1));
}

std::uint32_t Console::number_of(std::size_t port) const noexcept {
  if (port == first_console_) return 0;
  const bool behind = first_console_ && port > *first_console_;
  return static_cast<std::uint32_t>(behind ? port : port + 1);
}

std::optional<std::size_t> Console::port_of(std::uint32_t number) const noexcept {
  if (number >= numbers()) return std::nullopt;
  if (number == 0) return first_console_;
  const bool before = !first_console_ || number <= *first_console_;
  return before ? number - 1 : number;
}

std::uint16_t Console::receive_queue(std::size_t port) const noexcept {
  const std::uint32_t number = number_of(port);
  return static_cast<std::uint16_t>(number == 0 ? kReceive : 2 * number + 2);
}

std::uint16_t Console::transmit_queue(std::size_t port) const noexcept {
  return static_cast<std::uint16_t>(receive_queue(port) + 1);
}

std::uint64_t Console::features() const noexcept {
  return kSize | kEmergencyWrite | (multiport_ ? kMultiport : 0);
}

void Console::read_config(std::uint32_t offset, std::span<std::byte> data) const {
  ConsoleConfig config;
  if (first_console_) {
    config.columns = sizes_[*first_console_].columns;
    config.rows = sizes_[*first_console_].rows;
  }
  config.ports = numbers();
  const auto bytes = std::as_bytes(std::span(&config, 1)).subspan(offset, data.size());
  std::copy(bytes.begin(), bytes.end(), data.begin());
}

// Section 5.3.4: the lower byte of emerg_wr is output, also before there is a driver.
void Console::write_config(std::uint32_t offset, std::span<const std::byte> data) {
  if (offset != kEmergencyOffset || !first_console_) return;
  if (ByteSink* const output = ports_[*first_console_].output) output->write(data.first(1));
  ++counters_.output_bytes;
}

void Console::activate(std::uint64_t features) {
  negotiated_ = features;
  // Linux looks at the size when it is told that it has changed.
  if (first_console_ && sizes_[*first_console_].known() && !has(kMultiport)) {
    host().config_changed();
  }
}

bool Console::process(std::uint16_t queue) {
  bool more = false;
  if (multiport_ && queue == kControlReceive) {
    more = send_messages();
  } else if (multiport_ && queue == kControlTransmit) {
    more = take_messages();
  } else {
    const auto number = static_cast<std::uint32_t>(queue < kControlReceive ? 0 : queue / 2 - 1);
    const auto port = port_of(number);
    if (!port) {
      // Of port 0, when that is none: taken, so that no driver waits for ever.
      more = queue % 2 != 0 && drain(queue, chain_, [&](const Chain& chain) {
               host().queue(queue).push_used(chain, 0);
             });
    } else {
      more = queue % 2 == 0 ? give_input(*port) : take_output(*port);
    }
  }
  host().used(queue);
  return more;
}

// --- To the guest

bool Console::takes_input(std::size_t port) const {
  if (!host().active()) return false;
  return has(kMultiport) ? s_.ports[port].open : port == first_console_;
}

std::size_t Console::push_input(std::size_t port, std::span<const std::byte> bytes) {
  std::vector<std::uint8_t>& input = s_.ports[port].input;
  const std::size_t room = takes_input(port) ? kInputSize - input.size() : 0;
  const std::size_t taken = std::min(room, bytes.size());
  for (const std::byte byte : bytes.first(taken)) {
    input.push_back(std::to_integer<std::uint8_t>(byte));
  }
  refused_[port] = taken < bytes.size();
  if (taken != 0) host().ring(receive_queue(port));
  return taken;
}

bool Console::give_input(std::size_t port) {
  const std::uint16_t index = receive_queue(port);
  Queue& queue = host().queue(index);
  std::vector<std::uint8_t>& input = s_.ports[port].input;
  queue.disable_notifications();  // buffers are of interest only while bytes wait for them
  std::uint32_t left = queue.size();
  while (!input.empty() && left != 0) {
    if (!queue.pop(chain_)) {
      if (!queue.enable_notifications()) break;
      continue;
    }
    --left;
    ChainWriter writer(host().memory(), chain_);
    const std::size_t given = writer.write(std::as_bytes(std::span(input)));
    if (given == 0) ++counters_.malformed;
    input.erase(input.begin(), input.begin() + static_cast<std::ptrdiff_t>(given));
    counters_.input_bytes += given;
    queue.push_used(chain_, given);
  }
  settle_host_open(port);
  if (input.size() < kInputSize) tell_of_input_space(port);
  return left == 0 && !input.empty();
}

void Console::tell_of_input_space(std::size_t port) {
  if (!takes_input(port) || !refused_[port]) return;
  refused_[port] = false;
  if (ports_[port].on_input_space) ports_[port].on_input_space();
}

// --- From the guest

void Console::output_ready(std::size_t port) {
  if (s_.ports[port].output && host().active()) host().ring(transmit_queue(port));
}

bool Console::take_output(std::size_t port) {
  Queue& queue = host().queue(transmit_queue(port));
  std::optional<Output>& output = s_.ports[port].output;
  std::uint64_t bytes = kMostBytes;
  std::uint32_t left = queue.size();
  do {
    queue.disable_notifications();
    for (; left != 0; --left) {
      if (!output) {
        if (!queue.pop(chain_)) break;
        output.emplace(Output{.chain = std::exchange(chain_, {})});
      }
      const Sent sent = send(port, *output, bytes);
      if (sent == Sent::kSinkIsFull) return false;  // output_ready() goes on
      if (sent == Sent::kTurnIsOver) return true;
      queue.push_used(output->chain, 0);
      chain_ = std::exchange(output->chain, {});
      output.reset();
    }
    if (left == 0) return true;
  } while (queue.enable_notifications());
  return false;
}

Console::Sent Console::send(std::size_t port, Output& output, std::uint64_t& left) {
  ByteSink* const sink = ports_[port].output;
  ChainReader reader(host().memory(), output.chain);
  if (sink == nullptr) {
    counters_.output_bytes += reader.remaining();
    return Sent::kAll;
  }
  reader.skip(output.done);
  std::array<std::byte, KiB(4)> piece;
  while (reader.remaining() != 0) {
    const std::uint64_t most = std::min<std::uint64_t>(piece.size(), left);
    if (most == 0) return Sent::kTurnIsOver;
    const std::size_t room = sink->room();
    if (room == 0) return Sent::kSinkIsFull;
    const std::size_t size = reader.read(
        std::span(piece).first(static_cast<std::size_t>(std::min<std::uint64_t>(most, room))));
    sink->write(std::span(piece).first(size));
    output.done += size;
    left -= size;
    counters_.output_bytes += size;
  }
  return Sent::kAll;
}

// --- Life

bool Console::reset() {
  s_ = power_on();
  negotiated_ = 0;
  return true;
}

bool Console::reset_queue(std::uint16_t queue) {
  for (std::size_t port = 0; port < ports_.size(); ++port) {
    if (queue == transmit_queue(port)) s_.ports[port].output.reset();
  }
  return true;
}

void Console::save(StateWriter& writer) const { writer.put(s_); }

Result<void> Console::restore(const StateReader& reader, bool active, std::uint64_t features) {
  State state = VMM_TRY(reader.get<State>());
  if (state.ports.size() != ports_.size()) {
    return fail(ErrorCode::kBadState, "'{}' has {} ports, its saved state {}", id_, ports_.size(),
                state.ports.size());
  }
  for (std::size_t port = 0; port < ports_.size(); ++port) {
    auto& output = state.ports[port].output;
    if (output) VMM_TRY(host().queue(transmit_queue(port)).readmit(output->chain));
  }
  s_ = std::move(state);
  negotiated_ = active ? features : 0;
  return {};
}

}  // namespace vmm::virtio
