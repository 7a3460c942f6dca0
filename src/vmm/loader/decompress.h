// Streaming decompression of what kernels and initrds are packed with, bounded in output and
// memory.
//
// The input is hostile: a bomb ends at the limit, a window that would need more than 128 MiB is
// refused, corrupt and truncated input ends in one error that says where.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string_view>

#include "base/result.h"

namespace vmm::loader {

// The formats that Linux uses for kernels and initrds (lib/decompress.c), and LZ4's frame format.
enum class Compression : std::uint8_t {
  kGzip,
  kBzip2,
  kLzma,  // ".lzma", LZMA_alone
  kXz,
  kLzo,        // lzop's container
  kLz4Legacy,  // "lz4 -l"
  kLz4Frame,
  kZstd,
};

// "gzip", "LZ4 (legacy)": for messages.
std::string_view to_string(Compression compression) noexcept;

// What the first bytes promise, or nothing when no magic number fits.
std::optional<Compression> detect_compression(std::span<const std::byte> bytes) noexcept;

// One step of output.
struct Produced {
  std::size_t bytes = 0;  // written to the front of the room that was given
  bool finished = false;  // the stream ended; there will be no more
};

// Takes the output, piece by piece, in order. It chooses where each piece is decoded to, so that
// most can be decoded right where they belong.
class OutputSink {
 public:
  using Produce = std::function<Result<Produced>(std::span<std::byte>)>;
  virtual ~OutputSink() = default;
  // Calls `produce` exactly once with at least `least` bytes of room (at least 1), takes what it
  // produced, and returns it. The room's other bytes may have been overwritten.
  virtual Result<Produced> receive(std::size_t least, const Produce& produce) = 0;
};

struct DecompressResult {
  std::uint64_t consumed =
      0;  // bytes of input up to the end of the stream: what follows is not its
  std::uint64_t produced = 0;
};

// Decodes the one stream at the start of `in`. Errors: kBadKernel for corrupt or truncated input
// and for more than `limit` bytes of output, kResource, and whatever the sink returns.
Result<DecompressResult> decompress(Compression compression, std::span<const std::byte> in,
                                    std::uint64_t limit, OutputSink& sink);

// The same with a callback that gets each piece; it must take it before it returns.
Result<DecompressResult> decompress(
    Compression compression, std::span<const std::byte> in, std::uint64_t limit,
    const std::function<Result<void>(std::span<const std::byte>)>& callback);

}  // namespace vmm::loader
