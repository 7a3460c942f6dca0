// Any sequence of what a driver may do to a disk, over a host that fails, hangs and grows it
// (docs/virtio.md).
#include <cerrno>

#include "devices/virtio/blk.h"
#include "tests/fuzz/virtio_board.h"
#include "tests/support/fakes/ram_disk.h"

namespace vmm::fuzz {
namespace {

constexpr std::size_t kDiskSize = KiB(64);

template <typename Driver>
class DiskBoard {
 public:
  void step(Program& program) {
    switch (program.byte() % 4) {
      case 0:
        return ask(program);
      case 1:
        return host(program);
      default:
        return board_.step(program);
    }
  }
  void check() {
    board_.check();
    // A request of the device's own is there when the driver has turned the cache off.
    require(disk_->under_way() <= blk().under_way() + 1);
    require(blk().under_way() <= 2 * std::size_t{4096});
    disk_->log.clear();
  }

 private:
  using Board = VirtioBoard<Driver>;

  virtio::Blk& blk() { return static_cast<virtio::Blk&>(board_.device()); }

  // A request as a driver makes it, but for what the program has in mind.
  void ask(Program& program) {
    constexpr std::array<std::uint32_t, 8> kTypes{0, 1, 4, 8, 11, 13, 2, ~0U};
    const std::uint64_t header = Board::kData + 0x100ULL * program.byte();
    const std::uint8_t shape = program.byte();
    const std::uint64_t sector = (shape & 0x80) != 0 ? ~0ULL - program.byte() : program.byte();
    require(board_.memory().write(Gpa(header), kTypes[program.byte() % 8]).has_value());
    require(board_.memory().write(Gpa(header + 8), sector).has_value());
    std::vector<test::RingBuffer> buffers{{header, (shape & 0x40) != 0 ? 15U : 16U, false}};
    const std::uint32_t most = (shape & 0x20) != 0 ? 1U : 512U;
    for (int i = 0; i < (shape & 3); ++i) {
      buffers.push_back({Board::kData + 512ULL * program.byte(), most * (program.byte() % 16U + 1),
                         (shape & 4) != 0});
    }
    if ((shape & 8) == 0) buffers.push_back({header + 0x80, 1, true});
    board_.request(program.byte() % 2, buffers, (shape & 16) != 0);
  }
  void host(Program& program) {
    constexpr std::array<int, 4> kErrors{EIO, ENOSPC, EOPNOTSUPP, EINTR};
    switch (program.byte() % 5) {
      case 0:
        disk_->held = (program.byte() & 1) != 0;
        return;
      case 1:
        return disk_->fail_next(static_cast<BlockOp>(program.byte() % 5),
                                kErrors[program.byte() % 4]);
      case 2:
        return blk().completed();
      case 3:
        return blk().finish_requests();
      case 4:
        blk().finish_requests();  // a disk that shrinks under requests is the image's business
        disk_->resize(KiB(4) * (program.byte() % 32U + 1));
        require(blk().refresh_size().has_value());
        return;
    }
  }

  // Each machine has a disk of its own: what the last one left behind ends with it.
  std::unique_ptr<virtio::Device> make_device() {
    auto disk = std::make_shared<test::RamDisk>(disk_ ? disk_->bytes.size() : kDiskSize);
    disk->limits_to_change().discard = true;
    disk->limits_to_change().durable_writes = disk_ && !disk_->limits().durable_writes;
    disk_ = disk;
    return std::make_unique<virtio::Blk>(
        "disk0", virtio::Blk::Options{.backend = disk, .serial = "S", .queues = 2});
  }

  std::shared_ptr<test::RamDisk> disk_;
  Board board_{[this] { return make_device(); }};
};

}  // namespace
}  // namespace vmm::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  vmm::fuzz::run_board<vmm::fuzz::DiskBoard>({data, size});
  return 0;
}
