// Any sequence of what a driver may do to persistent memory: flushes without end, requests that are
// none, resets while a flush is under way, a host whose flushes fail (docs/virtio.md).
#include <cerrno>

#include "devices/virtio/pmem.h"
#include "tests/fuzz/virtio_board.h"
#include "tests/support/fakes/manual_pmem.h"

namespace vmm::fuzz {
namespace {

using virtio::Pmem;

// One flush is under way at most, and its result is taken before the next.
class CheckedPmem final : public PmemBackend {
 public:
  void start_flush() override {
    require(!pmem_.under_way && !pmem_.result);
    pmem_.start_flush();
  }
  std::optional<int> take_result() override { return pmem_.take_result(); }
  void wait() override { pmem_.wait(); }
  int event_fd() const noexcept override { return pmem_.event_fd(); }
  void end(int error) {
    if (pmem_.under_way) pmem_.end(error);
  }

 private:
  test::ManualPmem pmem_;
};

template <typename Driver>
class PmemBoard {
 public:
  void step(Program& program) {
    switch (program.byte() % 4) {
      case 0:
        return flush(program);
      case 1:
        return host(program);
      default:
        return board_.step(program);
    }
  }
  void check() { board_.check(); }

 private:
  using Board = VirtioBoard<Driver>;

  void flush(Program& program) {
    const std::uint64_t at = Board::kData + 0x100ULL * program.byte();
    const std::uint8_t shape = program.byte();
    const std::uint32_t type = (shape & 7) == 7 ? program.wide() : 0;
    require(board_.memory().write(Gpa(at), type).has_value());
    board_.request(0,
                   {{at, (shape & 0x18) == 0x18 ? 3U : 4U, false},
                    {at + 0x40, (shape & 0x60) == 0x60 ? 2U : 4U, true}},
                   (shape & 0x80) != 0);
  }
  void host(Program& program) {
    const std::uint8_t what = program.byte();
    if ((what & 1) != 0) backend_->end((what & 6) == 6 ? EIO : 0);
    if ((what & 8) == 0) static_cast<Pmem&>(board_.device()).completed();
  }
  // Each machine has a file of its own: what the last one left behind ends with it.
  std::unique_ptr<virtio::Device> make_device() {
    backend_ = std::make_shared<CheckedPmem>();
    return std::make_unique<Pmem>("pmem0", *GpaRange::create(Gpa(GiB(4)), MiB(2)), backend_);
  }

  std::shared_ptr<CheckedPmem> backend_;
  Board board_{[this] { return make_device(); }};
};

}  // namespace
}  // namespace vmm::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  vmm::fuzz::run_board<vmm::fuzz::PmemBoard>({data, size});
  return 0;
}
