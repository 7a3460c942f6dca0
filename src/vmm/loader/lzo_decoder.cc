// LZO in the container of the lzop program, which is what Linux packs kernels and initrds with.
//
// The container has no published specification; the layout is that of lzop 1.04 and of Linux's
// lib/decompress_unlzo.c. All integers are big-endian.
#include <lzo/lzo1x.h>
#include <zlib.h>

#include <algorithm>
#include <cstring>

#include "base/size.h"
#include "vmm/loader/decoder.h"

namespace vmm::loader {
namespace {

constexpr std::size_t kMagicSize = 9;
constexpr std::size_t kMaxBlock = MiB(8);  // lzop's default is 256 KiB
constexpr std::uint32_t kVersionWithLevel = 0x0940;
// Header flags.
constexpr std::uint32_t kAdler32Output = 1U << 0;
constexpr std::uint32_t kAdler32Input = 1U << 1;
constexpr std::uint32_t kExtraField = 1U << 6;
constexpr std::uint32_t kCrc32Output = 1U << 8;
constexpr std::uint32_t kCrc32Input = 1U << 9;
constexpr std::uint32_t kMultipart = 1U << 10;
constexpr std::uint32_t kFilter = 1U << 11;
constexpr std::uint32_t kHeaderCrc32 = 1U << 12;

std::uint32_t checksum(bool crc, std::span<const std::byte> bytes) {
  const auto* const data = reinterpret_cast<const Bytef*>(bytes.data());
  return static_cast<std::uint32_t>(crc ? ::crc32_z(0, data, bytes.size())
                                        : ::adler32_z(1, data, bytes.size()));
}

class LzoDecoder final : public Decoder {
 public:
  explicit LzoDecoder(std::span<const std::byte> in) : in_(in) {}

  // The header, and the sizes of the first block.
  Result<void> start() {
    if (::lzo_init() != LZO_E_OK) return fail(ErrorCode::kResource, "Start the LZO library");
    VMM_TRY(skip(kMagicSize));
    const std::size_t checked_from = position_;
    const std::uint32_t version = VMM_TRY(number(2));
    VMM_TRY(skip(2));                                    // the version of the library
    if (version >= kVersionWithLevel) VMM_TRY(skip(2));  // the version needed to extract
    const std::uint32_t method = VMM_TRY(number(1));
    if (method < 1 || method > 3) {  // LZO1X-1, LZO1X-1(15), LZO1X-999
      return fail(ErrorCode::kBadKernel, "LZO stream has method {}, only 1 to 3 are known", method);
    }
    if (version >= kVersionWithLevel) VMM_TRY(skip(1));
    flags_ = VMM_TRY(number(4));
    if ((flags_ & (kFilter | kMultipart | kExtraField)) != 0) {
      return fail(ErrorCode::kBadKernel,
                  "LZO stream has flags {:#x}: filters, parts and extra fields are not supported",
                  flags_);
    }
    VMM_TRY(skip(8));  // mode, low half of the time
    if (version >= kVersionWithLevel) VMM_TRY(skip(4));
    const std::uint32_t name_size = VMM_TRY(number(1));
    VMM_TRY(skip(name_size));
    const std::uint32_t actual =
        checksum((flags_ & kHeaderCrc32) != 0, in_.subspan(checked_from, position_ - checked_from));
    const std::uint32_t stored = VMM_TRY(number(4));
    if (stored != actual) {
      return fail(ErrorCode::kBadKernel, "LZO header has checksum {:#x}, {:#x} expected", stored,
                  actual);
    }
    return next_block();
  }

  std::size_t least_room() const override { return std::max<std::size_t>(out_size_, 1); }
  std::uint64_t consumed() const override { return position_; }

  Result<Produced> step(std::span<std::byte> room) override {
    if (out_size_ == 0) return Produced{0, true};
    const std::size_t start = position_;
    VMM_TRY(skip(in_size_));
    const std::span<const std::byte> block = in_.subspan(start, in_size_);
    const std::span<std::byte> out = room.first(out_size_);
    if (block.size() == out.size()) {  // stored as it is
      std::memcpy(out.data(), block.data(), block.size());
    } else {
      lzo_uint n = out.size();
      const int status =
          ::lzo1x_decompress_safe(reinterpret_cast<const lzo_byte*>(block.data()), block.size(),
                                  reinterpret_cast<lzo_byte*>(out.data()), &n, nullptr);
      if (status != LZO_E_OK || n != out.size()) {
        return fail(ErrorCode::kBadKernel, "LZO block of {} bytes at byte {} of {} is corrupt",
                    block.size(), start, in_.size());
      }
    }
    const bool crc = (flags_ & kCrc32Output) != 0;
    if ((crc || (flags_ & kAdler32Output) != 0) && checksum(crc, out) != out_checksum_) {
      return fail(ErrorCode::kBadKernel, "LZO block at byte {} of {} unpacks to a wrong checksum",
                  start, in_.size());
    }
    VMM_TRY(next_block());
    return Produced{out.size(), out_size_ == 0};
  }

 private:
  Result<void> skip(std::size_t n) {
    if (n > in_.size() - position_) {
      return fail(ErrorCode::kBadKernel,
                  "LZO stream is truncated: {} bytes wanted at byte {}, {} are there", n, position_,
                  in_.size() - position_);
    }
    position_ += n;
    return {};
  }

  Result<std::uint32_t> number(std::size_t size) {
    VMM_TRY(skip(size));
    std::uint32_t value = 0;
    for (const std::byte b : in_.subspan(position_ - size, size)) {
      value = value << 8 | std::to_integer<std::uint32_t>(b);
    }
    return value;
  }

  Result<void> next_block() {
    out_size_ = VMM_TRY(number(4));
    if (out_size_ == 0) return {};  // the end mark
    in_size_ = VMM_TRY(number(4));
    if (out_size_ > kMaxBlock || in_size_ == 0 || in_size_ > out_size_) {
      return fail(ErrorCode::kBadKernel,
                  "LZO block before byte {} claims {} bytes for {} bytes of output (at most {})",
                  position_, in_size_, out_size_, kMaxBlock);
    }
    // Of two checksums the CRC comes second and is kept.
    if ((flags_ & kAdler32Output) != 0) out_checksum_ = VMM_TRY(number(4));
    if ((flags_ & kCrc32Output) != 0) out_checksum_ = VMM_TRY(number(4));
    if (in_size_ < out_size_) {
      if ((flags_ & kAdler32Input) != 0) VMM_TRY(skip(4));
      if ((flags_ & kCrc32Input) != 0) VMM_TRY(skip(4));
    }
    return {};
  }

  const std::span<const std::byte> in_;
  std::size_t position_ = 0;
  std::uint32_t flags_ = 0;
  std::size_t out_size_ = 0;  // of the next block; 0 at the end
  std::size_t in_size_ = 0;
  std::uint32_t out_checksum_ = 0;
};

}  // namespace

Result<std::unique_ptr<Decoder>> create_lzo_decoder(std::span<const std::byte> in) {
  auto decoder = std::make_unique<LzoDecoder>(in);
  VMM_TRY(decoder->start());
  return std::unique_ptr<Decoder>(std::move(decoder));
}

}  // namespace vmm::loader
