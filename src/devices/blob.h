// Bytes of a saved state that mean something to their owner only (KVM, a program's device): binary
// in a document.
#pragma once

#include <cstddef>
#include <vector>

#include "base/result.h"
#include "devices/state_value.h"

namespace vmm {

struct Blob {
  std::vector<std::byte> bytes;
  bool operator==(const Blob&) const = default;
};

// Found by the field lists (state_io.h), which know integers and structures.
void write_state(StateSlot slot, const Blob& blob);
Result<void> read_state(StateView view, Blob& blob);

}  // namespace vmm
