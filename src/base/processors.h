// How many processors this process may use.
#pragma once

#include <sched.h>

namespace vmm {

// Whether two of its threads can run at the same time: only then is it of use to look for another
// one's answer before one sleeps. One cheap system call; std::thread::hardware_concurrency() reads
// a file, and knows nothing of what the process is confined to (sched_setaffinity(2)).
inline bool has_several_processors() noexcept {
  cpu_set_t allowed;
  // It fails where there are more than the set can hold.
  if (::sched_getaffinity(0, sizeof allowed, &allowed) != 0) return true;
  return CPU_COUNT(&allowed) > 1;
}

}  // namespace vmm
