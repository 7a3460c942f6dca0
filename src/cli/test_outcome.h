// How the run of one test image ended.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace vmm::cli {

// Value type. Texts are the guest's and need not be UTF-8; of long ones the end is kept.
struct TestOutcome {
  std::string image = {};  // as it was given
  bool passed = false;
  std::string message = {};  // one line: how it ended
  int exit_status = -1;      // of `vmm run`; -1: killed
  std::chrono::milliseconds duration{0};
  std::string console = {};   // what the guest wrote to its serial port
  std::string messages = {};  // what `vmm run` said
};

}  // namespace vmm::cli
