// Which lines of a live trace are wanted: `--trace=pio:0x3f8-0x3ff,msr`.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace vmm::cli {

struct TraceRule {
  std::string kind;  // a name of kExitNames, or "cpuid"
  // Ports, guest-physical addresses, MSRs, CPUID leaves, or for a debug exit RIP; `last` included.
  std::uint64_t first = 0;
  std::uint64_t last = std::numeric_limits<std::uint64_t>::max();
  bool operator==(const TraceRule&) const = default;
};

// "pio", "msr:0xc0000080", "mmio:0xfee00000-0xfee00fff". Errors: kBadInput, what is wrong with it.
Result<TraceRule> parse_trace_rule(std::string_view text);

// Whether a line of VmConfig::trace ("vcpu0 pio write port 0x3f8 ...") is wanted by one of them;
// without any all are.
bool wants_trace(std::string_view line, std::span<const TraceRule> rules);

}  // namespace vmm::cli
