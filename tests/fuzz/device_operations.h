// Operations on all platform devices at once: a list of them that libFuzzer makes up or a corpus
// remembers, or as many random ones as anybody likes.
#pragma once

#include <cstdint>
#include <span>

namespace vmm::test {

// What a run did, and whether all that must hold held, whatever a guest does.
struct OperationsOutcome {
  const char* broken = nullptr;  // the promise that did not hold
  std::uint64_t operations = 0;  // the last one broke it
  std::uint64_t messages = 0;    // that the I/O APIC sent
  std::uint64_t interrupts = 0;  // that CPUs took
  std::uint64_t wakes = 0;       // of timers
};

// On new devices, one operation after the other as `program` says.
OperationsOutcome run_device_operations(std::span<const std::uint8_t> program);

// On new devices, that many random operations, the same ones for the same seed: like what drivers
// do, with registers that exist more often than others, and few resets.
OperationsOutcome run_random_device_operations(std::uint32_t seed, std::uint64_t operations);

}  // namespace vmm::test
