// Any sequence of what a driver may do to a balloon: lists of pages that are none, ranges that it
// does not own, statistics that make no sense (docs/virtio.md).
#include "devices/virtio/balloon.h"
#include "tests/fuzz/virtio_board.h"

namespace vmm::fuzz {
namespace {

using virtio::Balloon;

template <typename Driver>
class BalloonBoard {
 public:
  void step(Program& program) {
    switch (program.byte() % 5) {
      case 0:
        return give_pages(program);
      case 1:
        return report(program);
      case 2:
        return host(program);
      default:
        return board_.step(program);
    }
  }
  void check() { board_.check(); }

 private:
  using Board = VirtioBoard<Driver>;
  Balloon& balloon() { return static_cast<Balloon&>(board_.device()); }

  // Page numbers, most of them in RAM beside the rings.
  void give_pages(Program& program) {
    const std::uint64_t at = Board::kData + 0x100ULL * program.byte();
    const std::uint8_t count = program.byte() % 32;
    for (std::uint8_t i = 0; i < count; ++i) {
      const std::uint32_t page =
          (program.byte() & 7) != 0 ? 0x300U + program.byte() : program.wide();
      require(board_.memory().write(Gpa(at + 4ULL * i), page).has_value());
    }
    const std::uint32_t odd = program.byte() % 8 == 0 ? 1 : 0;
    board_.request(program.byte() % 3, {{at, 4U * count + odd, (program.byte() & 7) == 0}},
                   (program.byte() & 1) != 0);
  }
  void report(Program& program) {
    std::vector<test::RingBuffer> ranges;
    for (int i = 0; i <= program.byte() % 4; ++i) {
      ranges.push_back({0x30'0000 + 0x800ULL * program.byte(), 0x800U * program.byte(),
                        (program.byte() & 7) != 0});
    }
    board_.request(2, ranges, false);
  }
  void host(Program& program) {
    if ((program.byte() & 1) != 0) return balloon().request_stats();
    balloon().set_target(Balloon::kPageSize * program.wide());
  }

  Board board_{[] {
    return std::make_unique<Balloon>("balloon0", Balloon::Options{.size = MiB(1),
                                                                  .deflate_on_oom = true,
                                                                  .free_page_reporting = true,
                                                                  .statistics = true});
  }};
};

}  // namespace
}  // namespace vmm::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  vmm::fuzz::run_board<vmm::fuzz::BalloonBoard>({data, size});
  return 0;
}
