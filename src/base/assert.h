// VMM_ASSERT: a bug of ours, never of the guest, the user or the host. Checked in debug builds
// only.
#pragma once

#include <cassert>

// In a release build the condition is compiled but not evaluated: what only it uses stays used.
#ifdef NDEBUG
#define VMM_ASSERT(condition) static_cast<void>(sizeof(!(condition)))
#else
#define VMM_ASSERT(condition) assert(condition)
#endif
