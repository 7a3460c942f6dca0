// Vector code comes in straight lines: when one instruction of a line had to be finished, so have
// those behind it. They are executed in one go instead of one exit each.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "vmm/completion/context.h"

namespace vmm::completion {

// Executes what follows RIP, as far as it is computation that the guest would be stopped at again,
// at most `most` instructions and about a millisecond. Returns how many; RIP stands behind the last
// of them. The first that is not for here, or that raises an exception, has not begun: it is the
// guest's. Needs an executor.
Result<std::uint32_t> run_ahead(Context& context, std::uint32_t most);

}  // namespace vmm::completion
