// Any sequence of what a driver may do to a console device with three ports, and of what the host
// does meanwhile: types, stops reading, resizes, leaves (docs/console.md).
#include "devices/virtio/console.h"
#include "tests/fuzz/virtio_board.h"

namespace vmm::fuzz {
namespace {

using virtio::Console;
using virtio::ConsoleMessage;

constexpr std::size_t kPorts = 3;

// Counts what it gets, and has as much room as the program says.
class Reader final : public ByteSink {
 public:
  void write(std::span<const std::byte> bytes) override {
    require(bytes.size() <= std::max<std::size_t>(room_, 1));  // an emergency write does not ask
    room_ -= std::min(room_, bytes.size());
  }
  bool writable() const noexcept override { return room_ != 0; }
  std::size_t room() const noexcept override { return room_; }
  void take(std::size_t bytes) { room_ = bytes; }

 private:
  std::size_t room_ = 0;
};

template <typename Driver>
class ConsoleBoard {
 public:
  void step(Program& program) {
    switch (program.byte() % 6) {
      case 0:
        return message(program);
      case 1:
        return output(program);
      case 2:
      case 3:
        return host(program);
      default:
        return board_.step(program);
    }
  }
  void check() {
    board_.check();
    for (const Console::PortState& port : console().state().ports) {
      require(port.validate().has_value());
    }
  }

 private:
  using Board = VirtioBoard<Driver, 6>;
  Console& console() { return static_cast<Console&>(board_.device()); }

  void message(Program& program) {
    const std::uint64_t at = Board::kData + 0x10ULL * program.byte();
    const std::uint8_t lie = program.byte();
    ConsoleMessage message;
    message.port = lie % 8 == 1 ? program.wide() : program.byte() % kPorts;
    message.event = lie % 8 == 2 ? program.word() : program.byte() % 8U;
    message.value = lie % 4 == 3 ? program.word() : 1U;
    require(board_.memory().write(Gpa(at), std::as_bytes(std::span(&message, 1))).has_value());
    const std::uint32_t size = lie % 16 == 4 ? program.byte() : 8U;
    board_.request(Console::kControlTransmit, {{at, size, false}}, (lie & 0x80) != 0);
  }
  void output(Program& program) {
    constexpr std::array<std::uint8_t, 2> kQueues{Console::kTransmit, 5};
    board_.request(kQueues[program.byte() % 2],
                   {{Board::kData + program.word(), program.word(), false}}, false);
  }
  void host(Program& program) {
    const std::size_t port = program.byte() % kPorts;
    switch (program.byte() % 4) {
      case 0: {
        const std::vector<std::byte> bytes(program.word() % 6000);
        require(console().push_input(port, bytes) <= bytes.size());
        return;
      }
      case 1:
        readers_[port].take(program.word());
        return console().output_ready(port);
      case 2:
        return console().set_size(port, {.columns = program.word(), .rows = program.byte()});
      default:
        return console().set_host_open(port, (program.byte() & 1) != 0);
    }
  }

  std::array<Reader, kPorts> readers_;
  Board board_{[this] {
    return std::make_unique<Console>(
        "console0", std::vector<Console::Port>{{.name = "first", .output = &readers_[0]},
                                               {.output = &readers_[1]},
                                               {.output = &readers_[2]}});
  }};
};

}  // namespace
}  // namespace vmm::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  vmm::fuzz::run_board<vmm::fuzz::ConsoleBoard>({data, size});
  return 0;
}
