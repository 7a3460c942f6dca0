// An exit in words.
#pragma once

#include <string>

#include "vmm/exit_record.h"

namespace vmm {

// "#120 pio write 0x3f8 width 1 value 0x41 rip 0x1004", without the time.
std::string exit_text(const ExitRecord& record);

}  // namespace vmm
