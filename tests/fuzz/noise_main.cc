// Random operations on all platform devices, as many as wanted, with any compiler.
//
//   devices_noise [OPERATIONS [SEED]]     10 million from seed 1 when not said
//
// Devices are new every 20,000 operations, with the next seed. Says what happened; ends with 1 when
// something broke, naming the seed and the operation that show it again.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "tests/fuzz/device_operations.h"

int main(int argc, char** argv) {
  constexpr std::uint64_t kOnOneBoard = 20'000;
  const std::uint64_t wanted = argc > 1 ? std::strtoull(argv[1], nullptr, 0) : 10'000'000;
  auto seed = static_cast<std::uint32_t>(argc > 2 ? std::strtoul(argv[2], nullptr, 0) : 1);
  vmm::test::OperationsOutcome sum;
  while (sum.operations < wanted) {
    const auto outcome = vmm::test::run_random_device_operations(
        seed, std::min(kOnOneBoard, wanted - sum.operations));
    if (outcome.broken != nullptr) {
      std::fprintf(stderr, "seed %u, operation %llu: %s\n", seed,
                   static_cast<unsigned long long>(outcome.operations), outcome.broken);
      return 1;
    }
    sum.operations += outcome.operations;
    sum.messages += outcome.messages;
    sum.interrupts += outcome.interrupts;
    sum.wakes += outcome.wakes;
    ++seed;
  }
  std::printf("%llu operations held: %llu messages, %llu interrupts taken, %llu timers\n",
              static_cast<unsigned long long>(sum.operations),
              static_cast<unsigned long long>(sum.messages),
              static_cast<unsigned long long>(sum.interrupts),
              static_cast<unsigned long long>(sum.wakes));
  return 0;
}
