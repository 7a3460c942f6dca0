// An ELF file that arrives as a stream and is put where it belongs as it comes.
//
// The headers come first; with them, every later piece has a place: the memory of a segment, a note
// that is kept, what follows the ELF, or nowhere. Nothing is held that will not be needed, and a
// decompressor can write most pieces right into guest memory.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "memory/guest_memory.h"
#include "vmm/loader/bounds.h"
#include "vmm/loader/decompress.h"
#include "vmm/loader/elf.h"
#include "vmm/loader/host_buffer.h"

namespace vmm::loader {

class ElfStream final : public OutputSink {
 public:
  struct Options {
    // Where segments are put; nullptr only looks at the file. Borrowed.
    const GuestMemory* memory = nullptr;
    LoadBounds bounds = {};
    bool memory_is_zero = false;  // RAM is known to be all zeroes: leave untouched what must be
    // Bytes that will be added to the address of each segment; empty: 0. Called once the headers
    // are known.
    std::function<Result<std::uint64_t>(const ElfHeaders&)> choose_slide;
    std::optional<std::uint64_t> file_size;  // how long the stream is, when that is known
    bool keep_tail = false;                  // keep what follows the ELF, up to kMaxTail bytes
  };
  static constexpr std::uint64_t kMaxTail = 64ULL << 20;

  explicit ElfStream(Options options) : options_(std::move(options)) {}

  Result<Produced> receive(std::size_t least, const Produce& produce) override;
  // Takes bytes that are at hand already.
  Result<void> write(std::span<const std::byte> piece);
  // After the last piece: checks that nothing is missing, zeroes what has no bytes in the file and
  // reads the notes.
  Result<void> finish();

  // All of these only after finish() succeeded.
  const ElfHeaders& headers() const noexcept { return *elf_; }
  const std::vector<ElfNote>& notes() const noexcept { return notes_; }
  std::span<const std::byte> tail() const noexcept { return tail_; }
  std::uint64_t slide() const noexcept { return slide_; }
  std::uint64_t size() const noexcept { return position_; }  // bytes received

 private:
  struct Kept {
    FileRange file;
    std::vector<std::byte> bytes;
  };

  Result<void> begin(std::span<const std::byte> bytes);
  Result<void> check_placement() const;
  void populate() const;
  Result<void> take(std::span<const std::byte> piece);
  void keep(std::span<const std::byte> piece);
  // The guest memory of the next bytes, when they belong to exactly one segment and are at least
  // `least`.
  std::optional<GpaRange> next_run(std::size_t least) const;
  Gpa place_of(const ElfSegment& segment) const noexcept {
    return Gpa(segment.memory.base().value + slide_);  // check_placement() proved that it fits
  }

  Options options_;
  std::optional<ElfHeaders> elf_;
  std::uint64_t position_ = 0;      // in the file, of the next byte
  std::vector<std::byte> pending_;  // the file up to here, while the headers are incomplete
  HostBuffer scratch_;
  std::uint64_t slide_ = 0;
  std::vector<Kept> kept_;
  std::vector<std::byte> tail_;
  std::vector<ElfNote> notes_;
};

}  // namespace vmm::loader
