// A guest as it was at one moment, to be written to a core file while it goes on.
#pragma once

#include <functional>
#include <string>

#include "base/result.h"

namespace vmm {

// Made by Vm::freeze_core(), which it may outlive. One thread at a time.
class FrozenCore {
 public:
  virtual ~FrozenCore() = default;
  // The file that Vm::write_core() would have written then; as often as wanted. `cancelled` is
  // asked now and then. Errors: kResource when there is no room; kIo; kCancelled; then there is no
  // file, or the former one.
  virtual Result<void> write(const std::string& path,
                             const std::function<bool()>& cancelled = {}) = 0;
};

}  // namespace vmm
