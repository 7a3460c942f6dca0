// Any bytes as an ELF file: in one piece and in small ones, which must come to the same.
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "fuzz/fuzz_input.h"
#include "vmm/loader/elf_stream.h"

namespace {

using namespace vmm;  // NOLINT(google-build-using-namespace): a fuzz target is one function

loader::ElfStream::Options options_for(const GuestMemory& memory) {
  loader::ElfStream::Options options;
  options.memory = &memory;
  options.bounds.lowest = fuzz::kLowest;
  options.bounds.highest = fuzz::kHighest;
  options.keep_tail = true;
  return options;
}

Result<void> in_one_piece(loader::ElfStream& stream, std::span<const std::byte> file) {
  VMM_TRY(stream.write(file));
  return stream.finish();
}

// As a decompressor would: it writes to the room that it gets.
Result<void> in_pieces(loader::ElfStream& stream, std::span<const std::byte> file,
                       std::size_t piece) {
  while (!file.empty()) {
    const std::size_t n = std::min(piece, file.size());
    VMM_TRY(stream.receive(n, [&](std::span<std::byte> room) -> Result<loader::Produced> {
      std::ranges::copy(file.first(n), room.begin());
      return loader::Produced{n, false};
    }));
    file = file.subspan(n);
  }
  return stream.finish();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const GuestMemory one = fuzz::ram();
  static const GuestMemory two = fuzz::ram();
  const auto file = fuzz::bytes(data, size);
  loader::ElfStream whole(options_for(one));
  loader::ElfStream pieces(options_for(two));
  const auto first = in_one_piece(whole, file);
  const auto second = in_pieces(pieces, file, 1 + size / 7);
  fuzz::require(first.has_value() == second.has_value());
  if (!first) return 0;
  fuzz::require(std::ranges::equal(whole.tail(), pieces.tail()));
  fuzz::require(whole.notes().size() == pieces.notes().size());
  for (const loader::ElfSegment& s : whole.headers().segments) {
    std::vector<std::byte> a(static_cast<std::size_t>(s.memory.size()));
    std::vector<std::byte> b(a.size());
    fuzz::require(one.read(s.memory.base(), a) && two.read(s.memory.base(), b));
    fuzz::require(a == b);
    fuzz::require(std::ranges::equal(std::span(a).first(static_cast<std::size_t>(s.file.size())),
                                     file.subspan(static_cast<std::size_t>(s.file.begin),
                                                  static_cast<std::size_t>(s.file.size()))));
  }
  return 0;
}
