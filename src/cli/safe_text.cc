#include "cli/safe_text.h"

#include <nlohmann/json.hpp>

namespace vmm::cli {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";  // U+FFFD

}  // namespace

std::string harmless_text(std::string_view text) {
  // nlohmann's writer knows UTF-8; the quotes around and its escapes are taken away again.
  const std::string valid = nlohmann::json::parse(
      nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  std::string out;
  out.reserve(valid.size());
  for (std::size_t i = 0; i < valid.size(); ++i) {
    const auto byte = static_cast<unsigned char>(valid[i]);
    // U+0080 to U+009F are control characters, too: C2 80 to C2 9F.
    const bool is_c1 = byte == 0xc2 && static_cast<unsigned char>(valid[i + 1]) < 0xa0;
    if (is_c1) ++i;
    if (byte == '\r') continue;
    const bool harmless = byte >= 0x20 || byte == '\n' || byte == '\t';
    if (harmless && byte != 0x7f && !is_c1) {
      out += static_cast<char>(byte);
    } else {
      out += kReplacement;
    }
  }
  return out;
}

std::string xml_text(std::string_view text) {
  std::string valid = harmless_text(text);
  // U+FFFE and U+FFFF are UTF-8, but no characters of XML (1.0, 2.2).
  for (const std::string_view none : {"\xef\xbf\xbe", "\xef\xbf\xbf"}) {
    for (auto at = valid.find(none); at != std::string::npos; at = valid.find(none, at)) {
      valid.replace(at, none.size(), kReplacement);
    }
  }
  std::string out;
  for (const char c : valid) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

}  // namespace vmm::cli
