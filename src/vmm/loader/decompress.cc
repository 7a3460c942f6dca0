#include "vmm/loader/decompress.h"

#include <algorithm>
#include <array>

#include "vmm/loader/decoder.h"
#include "vmm/loader/host_buffer.h"

namespace vmm::loader {
namespace {

struct Magic {
  Compression compression;
  std::size_t size;
  std::array<std::uint8_t, 9> bytes;
};

// Linux: lib/decompress.c; LZ4 frame format 1.6; lzop's format from lib/decompress_unlzo.c.
constexpr std::array<Magic, 8> kMagics{{
    {Compression::kGzip, 2, {0x1f, 0x8b}},
    {Compression::kBzip2, 3, {'B', 'Z', 'h'}},
    {Compression::kLzma, 3, {0x5d, 0x00, 0x00}},
    {Compression::kXz, 6, {0xfd, '7', 'z', 'X', 'Z', 0x00}},
    {Compression::kLzo, 9, {0x89, 'L', 'Z', 'O', 0x00, 0x0d, 0x0a, 0x1a, 0x0a}},
    {Compression::kLz4Legacy, 4, {0x02, 0x21, 0x4c, 0x18}},
    {Compression::kLz4Frame, 4, {0x04, 0x22, 0x4d, 0x18}},
    {Compression::kZstd, 4, {0x28, 0xb5, 0x2f, 0xfd}},
}};

// Decodes to a buffer that stays in the cache, or a larger one for formats with large blocks.
class CallbackSink final : public OutputSink {
 public:
  explicit CallbackSink(const std::function<Result<void>(std::span<const std::byte>)>& callback)
      : callback_(callback) {}

  Result<Produced> receive(std::size_t least, const Produce& produce) override {
    if (buffer_.bytes().size() < least) {
      buffer_ = VMM_TRY(HostBuffer::create(std::max(least, kUsualSize),
                                           HostBuffer::Pages::kWhenUsed, "decompression"));
    }
    const Produced produced = VMM_TRY(produce(buffer_.bytes()));
    VMM_TRY(callback_(buffer_.bytes().first(produced.bytes)));
    return produced;
  }

 private:
  static constexpr std::size_t kUsualSize = 256 * 1024;
  const std::function<Result<void>(std::span<const std::byte>)>& callback_;
  HostBuffer buffer_;
};

}  // namespace

std::string_view to_string(Compression compression) noexcept {
  switch (compression) {
    case Compression::kGzip:
      return "gzip";
    case Compression::kBzip2:
      return "bzip2";
    case Compression::kLzma:
      return "LZMA";
    case Compression::kXz:
      return "XZ";
    case Compression::kLzo:
      return "LZO";
    case Compression::kLz4Legacy:
      return "LZ4 (legacy)";
    case Compression::kLz4Frame:
      return "LZ4 (frame)";
    case Compression::kZstd:
      return "zstd";
  }
  return "unknown";
}

std::optional<Compression> detect_compression(std::span<const std::byte> bytes) noexcept {
  for (const Magic& magic : kMagics) {
    const auto expected = std::as_bytes(std::span(magic.bytes)).first(magic.size);
    if (bytes.size() >= magic.size && std::ranges::equal(bytes.first(magic.size), expected)) {
      return magic.compression;
    }
  }
  return std::nullopt;
}

Result<std::unique_ptr<Decoder>> create_decoder(Compression compression,
                                                std::span<const std::byte> in,
                                                std::uint64_t limit) {
  if (detect_compression(in) != compression) {
    return fail(ErrorCode::kBadKernel, "no {} stream starts here", to_string(compression));
  }
  if (compression == Compression::kLz4Legacy) return create_lz4_legacy_decoder(in, limit);
  if (compression == Compression::kLzo) return create_lzo_decoder(in);
  return create_stream_decoder(compression, in);
}

Result<DecompressResult> decompress(Compression compression, std::span<const std::byte> in,
                                    std::uint64_t limit, OutputSink& sink) {
  const std::unique_ptr<Decoder> decoder = VMM_TRY(create_decoder(compression, in, limit));
  std::uint64_t produced = 0;
  const OutputSink::Produce produce = [&](std::span<std::byte> room) -> Result<Produced> {
    // One byte more than the limit allows is asked for, to tell an end from an excess.
    const std::uint64_t wanted =
        std::max<std::uint64_t>(limit - produced + 1, decoder->least_room());
    const Produced step = VMM_TRY(decoder->step(
        room.first(static_cast<std::size_t>(std::min<std::uint64_t>(room.size(), wanted)))));
    if (step.bytes > limit - produced) {
      return fail(ErrorCode::kBadKernel,
                  "{} stream unpacks to more than the {} bytes allowed (after {} of {} bytes of "
                  "input)",
                  to_string(compression), limit, decoder->consumed(), in.size());
    }
    produced += step.bytes;
    return step;
  };
  while (true) {
    const Produced step = VMM_TRY(sink.receive(decoder->least_room(), produce));
    if (step.finished) return DecompressResult{decoder->consumed(), produced};
  }
}

Result<DecompressResult> decompress(
    Compression compression, std::span<const std::byte> in, std::uint64_t limit,
    const std::function<Result<void>(std::span<const std::byte>)>& callback) {
  CallbackSink sink(callback);
  return decompress(compression, in, limit, sink);
}

}  // namespace vmm::loader
