// Any sequence of what a driver may do to a socket device, with programs of the host's that come,
// talk, hang and leave (docs/vsock.md).
#include "devices/virtio/vsock.h"
#include "tests/fuzz/virtio_board.h"
#include "tests/support/fakes/recording_vsock_backend.h"

namespace vmm::fuzz {
namespace {

using virtio::Vsock;
using virtio::VsockHeader;

constexpr std::uint64_t kCid = 3;

template <typename Driver>
class VsockBoard {
 public:
  void step(Program& program) {
    switch (program.byte() % 5) {
      case 0:
      case 1:
        return packet(program);
      case 2:
        return host(program);
      default:
        return board_.step(program);
    }
  }
  void check() {
    board_.check();
    require(vsock().connections() <= Vsock::kMostConnections);
    require(backend_->streams.size() <= Vsock::kMostConnections + backend_->events.size());
    for (auto& [number, stream] : backend_->streams) {
      stream.sent.clear();
      if (stream.waiting.size() > 65536) stream.waiting.resize(65536);
    }
  }

 private:
  using Board = VirtioBoard<Driver>;
  Vsock& vsock() { return static_cast<Vsock&>(board_.device()); }

  // Few ports, so that packets find connections.
  void packet(Program& program) {
    const std::uint64_t at = Board::kData + 0x400ULL * program.byte();
    const std::uint8_t lie = program.byte();
    VsockHeader header;
    header.source_cid = lie % 32 == 1 ? program.wide() : kCid;
    header.target_cid = lie % 32 == 2 ? program.wide() : 2;
    header.source_port = program.byte() % 4;
    header.target_port =
        (lie & 0x40) != 0 ? Vsock::kFirstHostPort + program.byte() % 4U : program.byte() % 4U;
    header.type = lie % 32 == 3 ? program.word() : VsockHeader::kStream;
    header.op = program.byte() % 10;
    header.flags = program.byte() % 8;
    header.buffer_size = lie % 8 == 4 ? program.wide() : 4096U;
    header.forwarded = lie % 8 == 5 ? program.wide() : 0U;
    const std::uint32_t length = program.word() % 1024;
    header.length = lie % 8 == 6 ? program.wide() : length;
    require(board_.memory().write(Gpa(at), std::as_bytes(std::span(&header, 1))).has_value());
    std::vector<test::RingBuffer> buffers{{at, sizeof header, false}};
    if (length != 0) buffers.push_back({at + 0x40, length, false});
    board_.request(Vsock::kTransmit, buffers, (lie & 0x80) != 0);
  }
  void host(Program& program) {
    const auto stream = [&] {
      auto chosen = backend_->streams.begin();
      std::advance(chosen, program.byte() % backend_->streams.size());
      return chosen->first;
    };
    const std::uint8_t what = program.byte() % 8;
    if (what == 0) return vsock().backend_ready();
    if (what == 1) return void(backend_->streams.size() < 300 && backend_->ask(program.byte() % 4));
    if (backend_->streams.empty()) return;
    const auto chosen = stream();
    switch (what) {
      case 2:
      case 3:
        return backend_->put(chosen, std::string(program.word() % 5000, 'h'));
      case 4:
        return backend_->end(chosen, (program.byte() & 1) != 0);
      case 5:
        return backend_->allow(chosen, program.word());
      case 6:
        backend_->streams[chosen].broken = true;
        return;
      default:
        return vsock().backend_ready();
    }
  }

  std::shared_ptr<test::RecordingVsockBackend> backend_ =
      std::make_shared<test::RecordingVsockBackend>();
  Board board_{[backend = backend_] { return std::make_unique<Vsock>("vsock0", kCid, backend); }};
};

}  // namespace
}  // namespace vmm::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  vmm::fuzz::run_board<vmm::fuzz::VsockBoard>({data, size});
  return 0;
}
