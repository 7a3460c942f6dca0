#include "base/size.h"

#include <array>
#include <cctype>
#include <charconv>

#include "base/checked.h"

namespace vmm {
namespace {

tl::unexpected<Error> bad_size(std::string_view text, std::string_view why) {
  return fail(ErrorCode::kBadConfig,
              "'{}' is not a size: {} (write 512M, 2G, 1GiB or a number of bytes)", text, why);
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front())))
    text.remove_prefix(1);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back())))
    text.remove_suffix(1);
  return text;
}

// The power of two that a suffix stands for, or -1. "", "B", "K", "KB", "KiB" and so on in any
// case.
int suffix_shift(std::string_view suffix) {
  if (suffix.empty()) return 0;
  const auto lower = [](char c) {
    return static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  };
  if (suffix.size() == 1 && lower(suffix[0]) == 'b') return 0;
  constexpr std::string_view kLetters = "kmgt";
  const auto letter = kLetters.find(lower(suffix[0]));
  if (letter == std::string_view::npos) return -1;
  suffix.remove_prefix(1);
  if (!suffix.empty() && lower(suffix[0]) == 'i') {
    suffix.remove_prefix(1);
    if (suffix.empty()) return -1;
  }
  if (!suffix.empty() && (suffix.size() != 1 || lower(suffix[0]) != 'b')) return -1;
  return static_cast<int>(10 * (letter + 1));
}

}  // namespace

Result<std::uint64_t> parse_size(std::string_view original) {
  std::string_view text = trim(original);
  if (text.empty()) return bad_size(original, "it is empty");
  if (text.size() > 2 && text[0] == '0' && (text[1] == 'x' || text[1] == 'X')) {
    std::uint64_t value = 0;
    const auto [end, ec] = std::from_chars(text.data() + 2, text.data() + text.size(), value, 16);
    if (ec != std::errc{} || end != text.data() + text.size())
      return bad_size(original, "bad hexadecimal number");
    return value;
  }
  std::uint64_t whole = 0;
  const char* const last = text.data() + text.size();
  auto [p, ec] = std::from_chars(text.data(), last, whole);
  if (ec == std::errc::result_out_of_range) return bad_size(original, "too large");
  if (ec != std::errc{}) return bad_size(original, "it does not start with a number");
  // A decimal fraction is exact enough in thousandths, and stays integer arithmetic.
  std::uint64_t thousandths = 0;
  if (p != last && *p == '.') {
    ++p;
    std::uint64_t scale = 100;
    if (p == last || !std::isdigit(static_cast<unsigned char>(*p)))
      return bad_size(original, "bad fraction");
    for (; p != last && std::isdigit(static_cast<unsigned char>(*p)); ++p) {
      thousandths += static_cast<std::uint64_t>(*p - '0') * scale;
      scale /= 10;
    }
  }
  const int shift = suffix_shift(trim(std::string_view(p, static_cast<std::size_t>(last - p))));
  if (shift < 0) return bad_size(original, "unknown unit");
  if (thousandths != 0 && shift == 0) return bad_size(original, "a fraction needs a unit");
  const auto scaled = checked_mul(whole, std::uint64_t{1} << shift);
  const auto total =
      scaled ? checked_add(*scaled, (thousandths << shift) / 1000) : std::optional<std::uint64_t>{};
  if (!total) return bad_size(original, "too large");
  return *total;
}

std::string format_size(std::uint64_t bytes) {
  struct Unit {
    int shift;
    std::string_view name;
  };
  constexpr std::array<Unit, 4> kUnits{{{40, "TiB"}, {30, "GiB"}, {20, "MiB"}, {10, "KiB"}}};
  for (const Unit& unit : kUnits) {
    const std::uint64_t one = std::uint64_t{1} << unit.shift;
    if (bytes < one) continue;
    if (bytes % one == 0) return fmt::format("{} {}", bytes >> unit.shift, unit.name);
    return fmt::format("{:.1f} {}", static_cast<double>(bytes) / static_cast<double>(one),
                       unit.name);
  }
  return fmt::format("{} bytes", bytes);
}

}  // namespace vmm
