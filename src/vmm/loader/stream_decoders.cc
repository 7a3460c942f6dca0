// Decoders that can stop at any byte of output: the library keeps the window.
#include <bzlib.h>
#include <lz4frame.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>

#include "base/size.h"
#include "vmm/loader/decoder.h"

namespace vmm::loader {
namespace {

// What one call of a decompression library may need for its window: xz -9 uses 64 MiB, a kernel
// packed by zstd --ultra 128 MiB.
constexpr std::uint64_t kMaxDecoderMemory = MiB(160);
constexpr int kMaxZstdWindowLog = 27;
// Some libraries count in 32 bits.
constexpr std::size_t kMaxPiece = std::size_t{1} << 30;

// What the decoders have in common: where they are in the input, and what no progress means.
class StreamDecoder : public Decoder {
 public:
  StreamDecoder(Compression compression, std::span<const std::byte> in)
      : compression_(compression), in_(in) {}

  std::size_t least_room() const final { return 1; }
  std::uint64_t consumed() const final { return position_; }

  Result<Produced> step(std::span<std::byte> room) final {
    const std::span<const std::byte> rest = in_.subspan(position_);
    const Call call = run(rest.first(std::min(rest.size(), kMaxPiece)),
                          room.first(std::min(room.size(), kMaxPiece)));
    position_ += call.consumed;
    if (!call.problem.empty()) {
      return fail(ErrorCode::kBadKernel, "{} stream is no good at byte {} of {}: {}",
                  to_string(compression_), position_, in_.size(), call.problem);
    }
    if (!call.finished && call.consumed == 0 && call.produced == 0) {
      return fail(ErrorCode::kBadKernel, "{} stream {} at byte {} of {}", to_string(compression_),
                  position_ == in_.size() ? "is truncated: the input ends" : "stands still",
                  position_, in_.size());
    }
    return Produced{call.produced, call.finished};
  }

 protected:
  struct Call {
    std::size_t consumed = 0;
    std::size_t produced = 0;
    bool finished = false;
    std::string_view problem;  // empty: all is well
  };
  virtual Call run(std::span<const std::byte> in, std::span<std::byte> out) = 0;

 private:
  const Compression compression_;
  const std::span<const std::byte> in_;
  std::size_t position_ = 0;
};

class GzipDecoder final : public StreamDecoder {
 public:
  explicit GzipDecoder(std::span<const std::byte> in) : StreamDecoder(Compression::kGzip, in) {
    constexpr int kGzipOnly = 16;  // zlib.h, inflateInit2: a gzip header and trailer, CRC checked
    ready_ = ::inflateInit2(&stream_, kGzipOnly + MAX_WBITS) == Z_OK;
  }
  ~GzipDecoder() override {
    if (ready_) ::inflateEnd(&stream_);
  }
  GzipDecoder(const GzipDecoder&) = delete;
  GzipDecoder& operator=(const GzipDecoder&) = delete;
  bool ready() const { return ready_; }

 private:
  Call run(std::span<const std::byte> in, std::span<std::byte> out) override {
    stream_.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(in.data()));
    stream_.avail_in = static_cast<uInt>(in.size());
    stream_.next_out = reinterpret_cast<Bytef*>(out.data());
    stream_.avail_out = static_cast<uInt>(out.size());
    const int status = ::inflate(&stream_, Z_NO_FLUSH);
    Call call{
        in.size() - stream_.avail_in, out.size() - stream_.avail_out, status == Z_STREAM_END, {}};
    if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR) {
      call.problem = stream_.msg != nullptr ? stream_.msg : "corrupt data";
    }
    return call;
  }
  z_stream stream_{};
  bool ready_ = false;
};

class Bzip2Decoder final : public StreamDecoder {
 public:
  explicit Bzip2Decoder(std::span<const std::byte> in) : StreamDecoder(Compression::kBzip2, in) {
    ready_ = ::BZ2_bzDecompressInit(&stream_, 0, 0) == BZ_OK;
  }
  ~Bzip2Decoder() override {
    if (ready_) ::BZ2_bzDecompressEnd(&stream_);
  }
  Bzip2Decoder(const Bzip2Decoder&) = delete;
  Bzip2Decoder& operator=(const Bzip2Decoder&) = delete;
  bool ready() const { return ready_; }

 private:
  Call run(std::span<const std::byte> in, std::span<std::byte> out) override {
    stream_.next_in = const_cast<char*>(reinterpret_cast<const char*>(in.data()));
    stream_.avail_in = static_cast<unsigned>(in.size());
    stream_.next_out = reinterpret_cast<char*>(out.data());
    stream_.avail_out = static_cast<unsigned>(out.size());
    const int status = ::BZ2_bzDecompress(&stream_);
    Call call{
        in.size() - stream_.avail_in, out.size() - stream_.avail_out, status == BZ_STREAM_END, {}};
    if (status == BZ_MEM_ERROR) {
      call.problem = "out of memory";
    } else if (status != BZ_OK && status != BZ_STREAM_END) {
      call.problem = "corrupt data";
    }
    return call;
  }
  bz_stream stream_{};
  bool ready_ = false;
};

class LzmaDecoder final : public StreamDecoder {  // XZ and LZMA_alone
 public:
  LzmaDecoder(Compression compression, std::span<const std::byte> in)
      : StreamDecoder(compression, in) {
    ready_ = (compression == Compression::kXz
                  ? ::lzma_stream_decoder(&stream_, kMaxDecoderMemory, 0)
                  : ::lzma_alone_decoder(&stream_, kMaxDecoderMemory)) == LZMA_OK;
  }
  ~LzmaDecoder() override { ::lzma_end(&stream_); }
  LzmaDecoder(const LzmaDecoder&) = delete;
  LzmaDecoder& operator=(const LzmaDecoder&) = delete;
  bool ready() const { return ready_; }

 private:
  Call run(std::span<const std::byte> in, std::span<std::byte> out) override {
    stream_.next_in = reinterpret_cast<const std::uint8_t*>(in.data());
    stream_.avail_in = in.size();
    stream_.next_out = reinterpret_cast<std::uint8_t*>(out.data());
    stream_.avail_out = out.size();
    const lzma_ret status = ::lzma_code(&stream_, LZMA_RUN);
    Call call{in.size() - stream_.avail_in,
              out.size() - stream_.avail_out,
              status == LZMA_STREAM_END,
              {}};
    if (status == LZMA_MEMLIMIT_ERROR) {
      call.problem = "its dictionary needs more memory than is allowed";
    } else if (status == LZMA_MEM_ERROR) {
      call.problem = "out of memory";
    } else if (status == LZMA_OPTIONS_ERROR) {
      call.problem = "it uses options that this liblzma does not know";
    } else if (status != LZMA_OK && status != LZMA_STREAM_END && status != LZMA_BUF_ERROR) {
      call.problem = "corrupt data";
    }
    return call;
  }
  lzma_stream stream_ = LZMA_STREAM_INIT;
  bool ready_ = false;
};

class ZstdDecoder final : public StreamDecoder {
 public:
  explicit ZstdDecoder(std::span<const std::byte> in)
      : StreamDecoder(Compression::kZstd, in), context_(::ZSTD_createDCtx()) {
    if (context_ != nullptr) {
      ready_ = ::ZSTD_isError(
                   ::ZSTD_DCtx_setParameter(context_, ZSTD_d_windowLogMax, kMaxZstdWindowLog)) == 0;
    }
  }
  ~ZstdDecoder() override { ::ZSTD_freeDCtx(context_); }
  ZstdDecoder(const ZstdDecoder&) = delete;
  ZstdDecoder& operator=(const ZstdDecoder&) = delete;
  bool ready() const { return ready_; }

 private:
  Call run(std::span<const std::byte> in, std::span<std::byte> out) override {
    ZSTD_inBuffer input{in.data(), in.size(), 0};
    ZSTD_outBuffer output{out.data(), out.size(), 0};
    const std::size_t status = ::ZSTD_decompressStream(context_, &output, &input);
    Call call{input.pos, output.pos, status == 0, {}};
    if (::ZSTD_isError(status) != 0) call.problem = ::ZSTD_getErrorName(status);
    return call;
  }
  ZSTD_DCtx* context_;
  bool ready_ = false;
};

class Lz4FrameDecoder final : public StreamDecoder {
 public:
  explicit Lz4FrameDecoder(std::span<const std::byte> in)
      : StreamDecoder(Compression::kLz4Frame, in) {
    ready_ = ::LZ4F_isError(::LZ4F_createDecompressionContext(&context_, LZ4F_VERSION)) == 0;
  }
  ~Lz4FrameDecoder() override { ::LZ4F_freeDecompressionContext(context_); }
  Lz4FrameDecoder(const Lz4FrameDecoder&) = delete;
  Lz4FrameDecoder& operator=(const Lz4FrameDecoder&) = delete;
  bool ready() const { return ready_; }

 private:
  Call run(std::span<const std::byte> in, std::span<std::byte> out) override {
    std::size_t produced = out.size();
    std::size_t consumed = in.size();
    const std::size_t status =
        ::LZ4F_decompress(context_, out.data(), &produced, in.data(), &consumed, nullptr);
    if (::LZ4F_isError(status) != 0) return Call{0, 0, false, ::LZ4F_getErrorName(status)};
    return Call{consumed, produced, status == 0, {}};
  }
  LZ4F_dctx* context_ = nullptr;
  bool ready_ = false;
};

template <typename T, typename... Args>
Result<std::unique_ptr<Decoder>> made(Args&&... args) {
  auto decoder = std::make_unique<T>(std::forward<Args>(args)...);
  if (!decoder->ready()) return fail(ErrorCode::kResource, "Start a decompression library");
  return std::unique_ptr<Decoder>(std::move(decoder));
}

}  // namespace

Result<std::unique_ptr<Decoder>> create_stream_decoder(Compression compression,
                                                       std::span<const std::byte> in) {
  switch (compression) {
    case Compression::kGzip:
      return made<GzipDecoder>(in);
    case Compression::kBzip2:
      return made<Bzip2Decoder>(in);
    case Compression::kLzma:
    case Compression::kXz:
      return made<LzmaDecoder>(compression, in);
    case Compression::kLz4Frame:
      return made<Lz4FrameDecoder>(in);
    case Compression::kZstd:
      return made<ZstdDecoder>(in);
    case Compression::kLzo:
    case Compression::kLz4Legacy:
      break;
  }
  return fail(ErrorCode::kBadKernel, "{} is not a stream format", to_string(compression));
}

}  // namespace vmm::loader
