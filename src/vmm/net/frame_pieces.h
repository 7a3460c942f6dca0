// Frames between one place and several.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>
#include <vector>

namespace vmm {

// The pieces' bytes, in a row. They may change meanwhile: what is copied is what counts.
inline std::vector<std::byte> gather(std::span<const ::iovec> pieces) {
  std::vector<std::byte> bytes;
  for (const ::iovec& piece : pieces) {
    const auto* const from = static_cast<const std::byte*>(piece.iov_base);
    bytes.insert(bytes.end(), from, from + piece.iov_len);
  }
  return bytes;
}

// Copies as many bytes as there is room for; how many.
inline std::size_t scatter(std::span<const std::byte> bytes, std::span<const ::iovec> into) {
  std::size_t done = 0;
  for (const ::iovec& piece : into) {
    const std::size_t size = std::min(piece.iov_len, bytes.size() - done);
    if (size == 0) continue;
    std::memcpy(piece.iov_base, bytes.data() + done, size);
    done += size;
  }
  return done;
}

}  // namespace vmm
