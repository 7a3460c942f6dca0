#include "base/join.h"

namespace vmm {
namespace {

template <typename Part>
std::string joined(std::span<const Part> parts, std::string_view separator) {
  std::string text;
  for (const Part& part : parts) {
    if (&part != parts.data()) text += separator;
    text += part;
  }
  return text;
}

}  // namespace

std::string join(std::span<const std::string> parts, std::string_view separator) {
  return joined(parts, separator);
}
std::string join(std::span<const std::string_view> parts, std::string_view separator) {
  return joined(parts, separator);
}

}  // namespace vmm
