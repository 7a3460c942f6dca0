// Any sequence of what a driver may do to a network interface, with frames from the other side
// (docs/virtio.md).
#include "devices/virtio/net.h"
#include "tests/fuzz/virtio_board.h"
#include "tests/support/fakes/recording_net_backend.h"

namespace vmm::fuzz {
namespace {

template <typename Driver>
class NetBoard {
 public:
  void step(Program& program) {
    switch (program.byte() % 6) {
      case 0:
        return send(program);
      case 1:
        return control(program);
      case 2:
        return network(program);
      default:
        return board_.step(program);
    }
  }
  void check() {
    board_.check();
    for (const auto& traffic : network_->sent) {
      require(traffic.frame.size() <= NetBackend::kMostFrame);
      const NetHeader& header = traffic.header;
      // What is left undone lies inside of the frame.
      if ((header.flags & NetHeader::kNeedsChecksum) != 0) {
        require(header.checksum_start + header.checksum_offset + 2U <= traffic.frame.size());
      }
      require(header.gso_type == NetHeader::kGsoNone || header.gso_size != 0);
    }
    network_->sent.clear();
    while (network_->waiting.size() > 16) network_->waiting.pop_front();
  }

 private:
  using Board = VirtioBoard<Driver>;

  virtio::Net& net() { return static_cast<virtio::Net&>(board_.device()); }

  void fill(Program& program, std::uint64_t at, std::size_t size) {
    for (std::size_t i = 0; i < size; ++i) {
      require(board_.memory().write(Gpa(at + i), program.byte()).has_value());
    }
  }
  void send(Program& program) {
    const std::uint64_t at = Board::kData + 0x100ULL * program.byte();
    fill(program, at, sizeof(NetHeader) + 20);
    const std::uint8_t shape = program.byte();
    std::vector<test::RingBuffer> buffers;
    if ((shape & 1) != 0) {
      buffers = {{at, std::uint32_t{sizeof(NetHeader)} + program.word(), false}};
    } else {
      buffers = {{at, sizeof(NetHeader), false}, {at + sizeof(NetHeader), program.word(), false}};
    }
    board_.request(virtio::Net::kTransmit, buffers, (shape & 2) != 0);
  }
  void control(Program& program) {
    const std::uint64_t at = Board::kData + 0x100ULL * program.byte();
    const std::uint8_t size = program.byte() % 32;
    fill(program, at, size);
    std::vector<test::RingBuffer> buffers{{at, size, false}};
    if ((program.byte() & 1) == 0) buffers.push_back({at + 0x80, 1, true});
    board_.request(virtio::Net::kControl, buffers, false);
  }
  void network(Program& program) {
    switch (program.byte() % 6) {
      case 0: {
        NetHeader header;
        header.flags = program.byte();
        header.gso_type = program.byte();
        header.gso_size = program.word();
        std::vector<std::byte> frame(std::min<std::size_t>(program.word(), NetBackend::kMostFrame));
        for (std::size_t i = 0; i < std::min<std::size_t>(frame.size(), 18); ++i) {
          frame[i] = std::byte{program.byte()};
        }
        return network_->put(std::move(frame), header);
      }
      case 1:
        return net().backend_ready();
      case 2:
        network_->refuse = (program.byte() & 1) != 0;
        return;
      case 3:
        network_->up = (program.byte() & 1) != 0;
        return;
      case 4:
        return net().set_link((program.byte() & 1) != 0);
      case 5:
        return net().announce();
    }
  }

  std::shared_ptr<test::RecordingNetBackend> network_ = [] {
    auto network = std::make_shared<test::RecordingNetBackend>();
    network->offloads = {.checksum = true, .tso4 = true, .tso6 = true, .ecn = true, .ufo = true};
    return network;
  }();
  Board board_{[network = network_] {
    return std::make_unique<virtio::Net>("net0", MacAddress{{2, 0, 0, 0, 0, 1}}, network);
  }};
};

}  // namespace
}  // namespace vmm::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  vmm::fuzz::run_board<vmm::fuzz::NetBoard>({data, size});
  return 0;
}
