#include "devices/blob.h"

namespace vmm {

void write_state(StateSlot slot, const Blob& blob) { slot.put_bytes(blob.bytes); }

Result<void> read_state(StateView view, Blob& blob) {
  const auto bytes = VMM_TRY(view.bytes());
  blob.bytes.assign(bytes.begin(), bytes.end());
  return {};
}

}  // namespace vmm
