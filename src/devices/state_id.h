// The name that a saved structure carries: light, so that a device's header needs no more.
#pragma once

#include <cstdint>
#include <string_view>

namespace vmm {

// Kind and version of a saved structure. A reader refuses a kind or version that it does not know.
struct StateId {
  std::string_view type;
  std::uint32_t version;
};

}  // namespace vmm
