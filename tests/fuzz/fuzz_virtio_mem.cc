// Any sequence of what a driver may do to memory that is plugged: ranges that are none, blocks that
// the host uses, requests that the host does not want, resets in between (docs/virtio.md).
#include <algorithm>

#include "devices/virtio/mem.h"
#include "tests/fuzz/virtio_board.h"
#include "tests/support/virtio/plug_ram.h"

namespace vmm::fuzz {
namespace {

using virtio::Mem;

template <typename Driver>
class MemBoard {
 public:
  void step(Program& program) {
    most_ = std::max(mem().plugged(), mem().requested());
    switch (program.byte() % 5) {
      case 0:
      case 1:
        return ask(program);
      case 2:
        return host(program);
      default:
        return board_.step(program);
    }
  }
  void check() {
    board_.check();
    // More only comes when the host wants it.
    require(mem().plugged() <= most_);
    require(mem().plugged() <= mem().region_size());
  }

 private:
  using Board = VirtioBoard<Driver>;
  static constexpr std::uint64_t kRegion = test::kPlugBlock * test::kPlugBlocks;

  static Board make_board() {
    static const GuestMemory memory = test::make_plug_ram();
    return Board(
        [] {
          return std::make_unique<Mem>("mem0", Gpa(test::kPlugBase), test::plug_blocks(memory),
                                       kRegion / 2);
        },
        memory);
  }
  Mem& mem() { return static_cast<Mem&>(board_.device()); }

  // A request as a driver makes it, but for what the program has in mind.
  void ask(Program& program) {
    const std::uint64_t at = Board::kData + 0x100ULL * program.byte();
    const std::uint8_t shape = program.byte();
    const std::uint64_t odd = (shape & 7) == 7 ? program.wide() : 0;
    const std::uint64_t block = program.byte() % (test::kPlugBlocks + 2);
    const std::uint64_t first = test::kPlugBase + test::kPlugBlock * block + odd;
    const std::uint16_t count = (shape & 0x38) != 0 ? program.byte() % 32U : program.word();
    require(board_.memory().write(Gpa(at), std::uint16_t{program.byte()} % 5U).has_value());
    require(board_.memory().write(Gpa(at + 8), first).has_value());
    require(board_.memory().write(Gpa(at + 16), count).has_value());
    const std::uint32_t request = (shape & 0xc0) == 0xc0 ? program.byte() % 32U : 24;
    board_.request(0, {{at, request, false}, {at + 0x40, (shape & 0xc0) == 0x80 ? 4U : 10U, true}},
                   (shape & 1) != 0);
  }
  void host(Program& program) {
    const std::uint8_t block = program.byte() % test::kPlugBlocks;
    const std::uint64_t address = test::kPlugBase + test::kPlugBlock * block;
    switch (program.byte() % 4) {
      case 0:
        return mem().set_requested(test::kPlugBlock * (program.byte() % (test::kPlugBlocks + 1)));
      case 1: {
        auto held = board_.memory().hold(*GpaRange::create(Gpa(address), 4096));
        if (held) in_use_.push_back(*std::move(held));
        return;
      }
      case 2:
        // What is held is there, whatever the driver has done since.
        for (const HeldBytes& bytes : in_use_) *bytes.data = std::byte{1};
        return in_use_.clear();
      case 3:
        return void(board_.memory().write(Gpa(address + program.word()), program.wide()));
    }
  }

  Board board_ = make_board();
  std::vector<HeldBytes> in_use_;  // goes before the memory
  std::uint64_t most_ = 0;
};

}  // namespace
}  // namespace vmm::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  vmm::fuzz::run_board<vmm::fuzz::MemBoard>({data, size});
  return 0;
}
