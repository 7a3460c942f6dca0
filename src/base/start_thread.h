// A thread, or an error where the host makes no more of them.
#pragma once

#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include "base/result.h"

namespace vmm {

// Runs fn() on a new thread, which belongs to the caller; `whose` tells the user what it is for
// ("vCPU 1"). Errors: kResource, where a limit of the user's or of a control group's is reached.
template <typename Fn>
Result<std::thread> start_thread(std::string_view whose, Fn fn) {
  try {
    return std::thread(std::move(fn));
  } catch (const std::system_error& error) {
    return fail(ErrorCode::kResource,
                "Start the thread of {}: {} (see 'ulimit -u' and the control group's pids.max)",
                whose, error.what());
  }
}

}  // namespace vmm
