// Bytes of a saved state that mean something to KVM or the processor only: binary in a document.
#pragma once

#include <cstddef>
#include <vector>

namespace vmm {

struct Blob {
  std::vector<std::byte> bytes;
  bool operator==(const Blob&) const = default;
};

}  // namespace vmm
