// What `vmm test` asks of every image.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace vmm::cli {

// Value type.
struct TestRules {
  std::chrono::nanoseconds timeout = std::chrono::seconds(60);
  std::uint32_t pass_value = 0;          // a guest that writes it to the debug-exit port has passed
  std::vector<std::string> run_options;  // for `vmm run`, behind its others
};

}  // namespace vmm::cli
