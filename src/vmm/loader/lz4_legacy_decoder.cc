// LZ4 in its legacy container ("lz4 -l"): a magic number, then blocks of at most 8 MiB of output,
// each behind its compressed size; no end mark, no checksum (LZ4 frame format 1.6, "Legacy frame").
#include <lz4.h>

#include <algorithm>

#include "base/le.h"
#include "base/size.h"
#include "vmm/loader/decoder.h"

namespace vmm::loader {
namespace {

constexpr std::uint32_t kMagic = 0x184c2102;
constexpr std::size_t kBlockSize = MiB(8);
constexpr std::size_t kMaxExpansion = 255;  // a byte of LZ4 describes at most so many

class Lz4LegacyDecoder final : public Decoder {
 public:
  Lz4LegacyDecoder(std::span<const std::byte> in, std::uint64_t limit) : in_(in), limit_(limit) {
    next_block();
  }

  std::uint64_t consumed() const override { return position_; }

  std::size_t least_room() const override {
    const std::uint64_t left = limit_ - std::min(limit_, produced_);
    return static_cast<std::size_t>(std::clamp<std::uint64_t>(
        left, 1, std::min<std::uint64_t>(kBlockSize, block_size_ * kMaxExpansion + 1)));
  }

  Result<Produced> step(std::span<std::byte> room) override {
    if (finished_) return Produced{0, true};
    const std::span<const std::byte> rest = in_.subspan(position_ + sizeof(Le32));
    if (block_size_ > rest.size()) {
      return fail(ErrorCode::kBadKernel,
                  "LZ4 (legacy) stream is truncated: the block at byte {} has {} bytes, {} are "
                  "there",
                  position_, block_size_, rest.size());
    }
    const std::size_t capacity = std::min(room.size(), kBlockSize);
    const int n = ::LZ4_decompress_safe(reinterpret_cast<const char*>(rest.data()),
                                        reinterpret_cast<char*>(room.data()),
                                        static_cast<int>(block_size_), static_cast<int>(capacity));
    if (n < 0) {
      return fail(ErrorCode::kBadKernel,
                  "LZ4 (legacy) block of {} bytes at byte {} of {} does not decode into {} bytes",
                  block_size_, position_, in_.size(), capacity);
    }
    position_ += sizeof(Le32) + block_size_;
    produced_ += static_cast<std::uint64_t>(n);
    next_block();
    return Produced{static_cast<std::size_t>(n), finished_};
  }

 private:
  // Looks at the size of the next block. The stream ends with the input, or where a size cannot be
  // one: then something else follows.
  void next_block() {
    while (in_.size() - position_ >= sizeof(Le32)) {
      const auto word = static_cast<std::uint32_t>(load_le(in_.subspan(position_, sizeof(Le32))));
      if (word == kMagic) {  // stands before the first block, and may before any other
        position_ += sizeof(Le32);
        continue;
      }
      constexpr auto kMaxBlock = static_cast<std::uint32_t>(LZ4_COMPRESSBOUND(kBlockSize));
      finished_ = word == 0 || word > kMaxBlock;
      block_size_ = word;
      return;
    }
    finished_ = true;
  }

  const std::span<const std::byte> in_;
  const std::uint64_t limit_;
  std::size_t position_ = 0;  // of the next block's size
  std::size_t block_size_ = 0;
  std::uint64_t produced_ = 0;
  bool finished_ = false;
};

}  // namespace

Result<std::unique_ptr<Decoder>> create_lz4_legacy_decoder(std::span<const std::byte> in,
                                                           std::uint64_t limit) {
  return std::unique_ptr<Decoder>(std::make_unique<Lz4LegacyDecoder>(in, limit));
}

}  // namespace vmm::loader
