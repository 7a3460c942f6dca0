// Texts of strangers (a guest's console, names in its memory) made fit for where they are shown.
#pragma once

#include <string>
#include <string_view>

namespace vmm::cli {

// Without what a terminal would act upon, and UTF-8: anything else becomes U+FFFD. Line feeds and
// tabs stay, carriage returns go: lines of consoles end with both.
std::string harmless_text(std::string_view text);

// The same for XML 1.0, between tags and in quoted attributes.
std::string xml_text(std::string_view text);

}  // namespace vmm::cli
