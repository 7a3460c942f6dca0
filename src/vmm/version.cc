#include "vmm/version.h"

namespace vmm {

const char* version() noexcept { return VMM_VERSION; }

}  // namespace vmm
