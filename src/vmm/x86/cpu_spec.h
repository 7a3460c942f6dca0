// What people write after --cpu: "host,-avx512f,+x2apic".
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace vmm::x86 {

// Feature names to add to or remove from what the host offers (cpu_features.h), for CpuConfig.
struct CpuSpec {
  std::vector<std::string> add;
  std::vector<std::string> remove;
  bool operator==(const CpuSpec&) const = default;
};

// A model name, "host", then features, each with + or - before it; separated by commas; the model
// may be left out when there are features. Errors: kBadConfig, naming everything that is unknown, a
// feature that is both added and removed, or a part that is neither.
Result<CpuSpec> parse_cpu_spec(std::string_view text);

}  // namespace vmm::x86
