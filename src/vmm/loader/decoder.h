// The pull side of decompression: a decoder writes the next bytes to the room that it is given.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "base/result.h"
#include "vmm/loader/decompress.h"

namespace vmm::loader {

// One stream of one format. The input is borrowed and outlives the decoder. Not thread-safe.
class Decoder {
 public:
  virtual ~Decoder() = default;
  // How much room the next step needs at least: 1 for formats that can stop anywhere, a block for
  // the others.
  virtual std::size_t least_room() const = 0;
  // Each step consumes input, produces output, or finishes: it never stands still.
  virtual Result<Produced> step(std::span<std::byte> room) = 0;
  // Bytes of input that belong to the stream so far.
  virtual std::uint64_t consumed() const = 0;
};

// A decoder at the start of `in`. `limit` bounds the output that is wanted: a hint with which block
// formats ask for less room. Errors: kBadKernel for a header that is no good, kResource.
Result<std::unique_ptr<Decoder>> create_decoder(Compression compression,
                                                std::span<const std::byte> in, std::uint64_t limit);

// The two families, each in a file of its own.
Result<std::unique_ptr<Decoder>> create_stream_decoder(Compression compression,
                                                       std::span<const std::byte> in);
Result<std::unique_ptr<Decoder>> create_lz4_legacy_decoder(std::span<const std::byte> in,
                                                           std::uint64_t limit);
Result<std::unique_ptr<Decoder>> create_lzo_decoder(std::span<const std::byte> in);

}  // namespace vmm::loader
