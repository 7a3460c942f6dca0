// Lists in messages. Not fmt::join(), which compiles fmt's whole engine in each file that uses it.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace vmm {

std::string join(std::span<const std::string> parts, std::string_view separator);
std::string join(std::span<const std::string_view> parts, std::string_view separator);

}  // namespace vmm
