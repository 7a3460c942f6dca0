// Virtio console: VIRTIO 1.2, section 5.3. Byte streams between the guest and the host: consoles,
// and ports with names for programs.
//
// Emulated: any number of ports up to kMostPorts, their names, openings and closings, the size of
// consoles, emergency writes; features SIZE, MULTIPORT, EMERG_WRITE. A device with one console and
// nothing else does without MULTIPORT: its driver then has the console as soon as it has the
// device, and learns the size from the configuration space. Not emulated: ports that come and go
// while the guest runs.
//
// Bytes wait where they come from. Output stays in the driver's buffers until the sink has room;
// input stays with the host until the guest has opened the port, and then until it takes what is
// here: kInputSize for each port.
//
// Threats: what the driver says on the control queue is copied and judged: numbers that are no port
// and events that are none are counted. What the device has to say is a few bits for each port,
// however often it is asked. A turn moves at most kMostBytes and looks at one ring's worth of
// buffers; buffers that are too small for a message come back empty.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/size.h"
#include "devices/console_size.h"
#include "devices/sink.h"
#include "devices/state_id.h"
#include "devices/virtio/console_message.h"
#include "devices/virtio/device.h"

namespace vmm::virtio {

class Console final : public Device {
 public:
  static constexpr std::size_t kMostPorts = 31;
  static constexpr std::size_t kMostName = 64;
  static constexpr std::size_t kInputSize = KiB(4);
  static constexpr std::uint64_t kMostBytes = KiB(256);  // of output, in a turn
  static constexpr std::uint16_t kQueueSize = 128;
  static constexpr std::uint16_t kControlSize = 32;
  // Section 5.3.2. The port with number n > 0 has the two queues from 2 * n + 2 on.
  static constexpr std::uint16_t kReceive = 0, kTransmit = 1, kControlReceive = 2,
                                 kControlTransmit = 3;

  // Section 5.3.3.
  static constexpr std::uint64_t kSize = 1ULL << 0;
  static constexpr std::uint64_t kMultiport = 1ULL << 1;
  static constexpr std::uint64_t kEmergencyWrite = 1ULL << 2;

  // A port is known to the host by its place in the list that the device was made with.
  struct Port {
    std::string name = {};       // a port for programs; empty: a console. At most kMostName bytes
    ByteSink* output = nullptr;  // borrowed; nullptr drops the bytes
    // Called, with the device's lock held, when the port takes input again after it took less than
    // it was given. Must only note that.
    std::function<void()> on_input_space = {};
  };

  // Output of which a part has been given to the sink.
  struct Output {
    Chain chain = {};
    std::uint64_t done = 0;  // bytes
    bool operator==(const Output&) const = default;
    static void fields(auto&& f) {
      f("chain", &Output::chain);
      f("done", &Output::done);
    }
  };
  // What the driver is to be told of a port, in the order in which it is told.
  enum Due : std::uint8_t {
    kAddDue = 1U << 0,
    kConsoleDue = 1U << 1,
    kNameDue = 1U << 2,
    kResizeDue = 1U << 3,
    kOpenDue = 1U << 4,
    kAllDue = 0x1f,
  };
  struct PortState {
    bool ready = false;     // the driver knows it
    bool open = false;      // the guest listens
    bool host_open = true;  // what the driver hears of the host's side
    std::uint8_t due = 0;
    std::vector<std::uint8_t> input = {};  // waits for buffers of the driver's
    std::optional<Output> output = {};     // waits for the sink
    bool operator==(const PortState&) const = default;
    Result<void> validate() const;
    static void fields(auto&& f) {
      f("ready", &PortState::ready);
      f("open", &PortState::open);
      f("host_open", &PortState::host_open);
      f("due", &PortState::due);
      f("input", &PortState::input);
      f("output", &PortState::output);
    }
  };
  struct State {
    static constexpr StateId kId{"virtio_console", 1};
    std::vector<PortState> ports = {};
    bool operator==(const State&) const = default;
    static void fields(auto&& f) { f("ports", &State::ports); }
  };
  // Since creation.
  struct Counters {
    std::uint64_t malformed = 0;  // messages and buffers that no driver sends
    std::uint64_t output_bytes = 0, input_bytes = 0;
  };

  // 1 to kMostPorts ports. The first console among them is the driver's port 0.
  Console(std::string id, std::vector<Port> ports);

  // --- The host's side; with the lock held.

  // Bytes for the guest: how many of them it takes. None while nobody listens on the port.
  std::size_t push_input(std::size_t port, std::span<const std::byte> bytes);
  // The port's sink has room again.
  void output_ready(std::size_t port);
  // The terminal of a console has this size now. Not saved: whoever restores says it anew.
  void set_size(std::size_t port, ConsoleSize size);
  // Whether somebody of the host's is there to talk to. Yes, until told otherwise; not saved. The
  // driver hears of an end when it has all input.
  void set_host_open(std::size_t port, bool open);

  std::size_t ports() const noexcept { return ports_.size(); }
  const std::string& port_name(std::size_t port) const noexcept { return ports_[port].name; }
  // Whether the guest listens.
  bool takes_input(std::size_t port) const;
  const State& state() const noexcept { return s_; }
  const Counters& counters() const noexcept { return counters_; }

  // --- The driver's side.

  std::string_view id() const noexcept override { return id_; }
  DeviceType type() const noexcept override { return DeviceType::kConsole; }
  std::uint64_t features() const noexcept override;
  std::span<const std::uint16_t> queue_sizes() const noexcept override { return queue_sizes_; }
  std::uint32_t config_size() const noexcept override { return sizeof(ConsoleConfig); }
  void read_config(std::uint32_t offset, std::span<std::byte> data) const override;
  void write_config(std::uint32_t offset, std::span<const std::byte> data) override;
  void activate(std::uint64_t features) override;
  bool process(std::uint16_t queue) override;
  bool reset() override;
  bool reset_queue(std::uint16_t queue) override;
  void save(StateWriter& writer) const override;
  Result<void> restore(const StateReader& reader, bool active, std::uint64_t features) override;

 private:
  bool has(std::uint64_t feature) const noexcept { return (negotiated_ & feature) != 0; }
  bool is_console(std::size_t port) const noexcept { return ports_[port].name.empty(); }
  State power_on() const { return State{.ports = std::vector<PortState>(ports_.size())}; }

  // Between a port's place in the list and the driver's number for it.
  std::uint32_t number_of(std::size_t port) const noexcept;
  std::optional<std::size_t> port_of(std::uint32_t number) const noexcept;
  // The driver's numbers are below this.
  std::uint32_t numbers() const noexcept;
  std::uint16_t receive_queue(std::size_t port) const noexcept;
  std::uint16_t transmit_queue(std::size_t port) const noexcept;

  // Each tells whether it stopped before everything was done.
  bool give_input(std::size_t port);
  bool take_output(std::size_t port);
  enum class Sent : std::uint8_t { kAll, kSinkIsFull, kTurnIsOver };
  Sent send(std::size_t port, Output& output, std::uint64_t& left);
  void tell_of_input_space(std::size_t port);

  // The control queues (console_control.cc).
  bool take_messages();
  bool send_messages();
  void handle(const ConsoleMessage& message);
  void owe(std::size_t port, unsigned due);
  // Tells the driver when the host's side has opened or closed.
  void settle_host_open(std::size_t port);
  // The next message of those that are due, its first byte the message's; empty when none is.
  std::span<const std::byte> next_message(std::span<std::byte> room, std::size_t& port,
                                          Due& due) const;

  State s_;
  const std::string id_;
  const std::vector<Port> ports_;
  const std::optional<std::size_t> first_console_;
  const bool multiport_;
  const std::vector<std::uint16_t> queue_sizes_;
  Counters counters_;
  std::uint64_t negotiated_ = 0;  // 0: no driver is at work

  // Of the host, for each port.
  std::vector<ConsoleSize> sizes_;
  std::vector<bool> host_open_;
  std::vector<bool> refused_;  // input did not all fit: on_input_space is awaited

  Chain chain_;  // its memory is used again for each request
};

}  // namespace vmm::virtio
