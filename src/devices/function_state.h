// What a device that is made of functions keeps outside of them, as bytes in a form of its own: for
// snapshots.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <vector>

#include "base/result.h"

namespace vmm {

// Both, or neither: without them a machine with the device cannot be saved.
struct FunctionState {
  std::function<std::vector<std::byte>()> save = {};
  // The bytes are those of a file that anybody may have written: to be checked. All or nothing.
  std::function<Result<void>(std::span<const std::byte> bytes)> restore = {};

  bool complete() const noexcept { return save && restore; }
  // For the devices' own: what there is to save; errors: kUnsupported, restore()'s.
  std::vector<std::byte> take() const { return save ? save() : std::vector<std::byte>(); }
  Result<void> give(std::span<const std::byte> bytes) const {
    if (restore) return restore(bytes);
    return fail(ErrorCode::kUnsupported, "it has no function to restore its state");
  }
};

// A device whose state is in its functions' hands says so: it is asked instead of who added it.
class StateInFunctions {
 public:
  virtual ~StateInFunctions() = default;
  virtual bool savable() const noexcept = 0;
};

}  // namespace vmm
