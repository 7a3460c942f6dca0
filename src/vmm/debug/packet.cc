#include "vmm/debug/packet.h"

#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

namespace vmm::debug {
namespace {

constexpr std::string_view kDigits = "0123456789abcdef";

bool needs_escape(char c) noexcept { return c == '#' || c == '$' || c == '}' || c == '*'; }

// "X*n": X, and n - 29 more of it. The count is a printable character other than '#' and '$'; '+'
// and '-' are left out because old clients take them for acknowledgements.
constexpr std::size_t kLeastRepeat = 3, kMostRepeat = 97;
constexpr std::size_t kRepeatBase = 29;

std::size_t shortened(std::size_t repeat) noexcept {
  repeat = std::min(repeat, kMostRepeat);
  while (repeat >= kLeastRepeat) {
    const char c = static_cast<char>(repeat + kRepeatBase);
    if (c != '#' && c != '$' && c != '+' && c != '-') return repeat;
    --repeat;
  }
  return 0;
}

}  // namespace

int hex_digit(char c) noexcept {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::optional<std::uint64_t> take_hex(std::string_view& text) noexcept {
  std::uint64_t value = 0;
  std::size_t n = 0;
  for (; n < text.size(); ++n) {
    const int digit = hex_digit(text[n]);
    if (digit < 0) break;
    if (n == 16) return std::nullopt;
    value = value << 4 | static_cast<std::uint64_t>(digit);
  }
  if (n == 0) return std::nullopt;
  text.remove_prefix(n);
  return value;
}

std::string to_hex(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size() * 2);
  for (const char c : bytes) {
    const auto value = static_cast<unsigned char>(c);
    text += kDigits[value >> 4];
    text += kDigits[value & 15];
  }
  return text;
}

std::optional<std::string> from_hex(std::string_view digits) {
  if (digits.size() % 2 != 0) return std::nullopt;
  std::string bytes;
  bytes.reserve(digits.size() / 2);
  for (std::size_t i = 0; i < digits.size(); i += 2) {
    const int high = hex_digit(digits[i]);
    const int low = hex_digit(digits[i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    bytes += static_cast<char>(high << 4 | low);
  }
  return bytes;
}

std::optional<PacketEvent> PacketReader::next(std::string_view& bytes) {
  while (!bytes.empty()) {
    const char c = bytes.front();
    bytes.remove_prefix(1);
    if (auto event = take(c)) return event;
  }
  return std::nullopt;
}

std::optional<PacketEvent> PacketReader::take(char c) {
  switch (state_) {
    case State::kIdle:
      return take_idle(c);
    case State::kPayload:
    case State::kEscaped:
      take_payload(c);
      return std::nullopt;
    case State::kChecksumHigh:
      high_digit_ = hex_digit(c);
      state_ = State::kChecksumLow;
      return std::nullopt;
    case State::kChecksumLow:
      return finish(hex_digit(c));
  }
  return std::nullopt;
}

std::optional<PacketEvent> PacketReader::take_idle(char c) {
  switch (c) {
    case '$':
      payload_.clear();
      sum_ = 0;
      too_long_ = false;
      state_ = State::kPayload;
      return std::nullopt;
    case '+':
      return PacketEvent{PacketEvent::Kind::kAck};
    case '-':
      return PacketEvent{PacketEvent::Kind::kNack};
    case '\x03':
      return PacketEvent{PacketEvent::Kind::kInterrupt};
    default:
      return std::nullopt;
  }
}

void PacketReader::keep(char c) {
  if (payload_.size() < kMostPayload) {
    payload_ += c;
  } else {
    too_long_ = true;
  }
}

void PacketReader::take_payload(char c) {
  if (c == '#') {
    state_ = State::kChecksumHigh;
    return;
  }
  if (c == '$') {  // never inside of one: the end of the last one was lost
    payload_.clear();
    sum_ = 0;
    too_long_ = false;
    state_ = State::kPayload;
    return;
  }
  sum_ = static_cast<std::uint8_t>(sum_ + static_cast<unsigned char>(c));
  if (state_ == State::kEscaped) {
    keep(static_cast<char>(c ^ 0x20));
    state_ = State::kPayload;
  } else if (c == '}') {
    state_ = State::kEscaped;
  } else {
    keep(c);
  }
}

PacketEvent PacketReader::finish(int low_digit) {
  state_ = State::kIdle;
  const bool good =
      !too_long_ && high_digit_ >= 0 && low_digit >= 0 && (high_digit_ << 4 | low_digit) == sum_;
  if (!good) return PacketEvent{PacketEvent::Kind::kBad};
  return PacketEvent{PacketEvent::Kind::kPacket, std::move(payload_)};
}

namespace {

constexpr std::size_t kBlock = sizeof(__m128i);

__m128i load_block(const char* from) noexcept {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
}

// How many of the bytes from there on are sent as they are: up to one that is escaped, or that
// begins a run worth shortening. A whole block and one byte more can be read.
std::size_t plain_bytes(const char* from) noexcept {
  const __m128i block = load_block(from);
  const auto is = [block](char c) { return _mm_cmpeq_epi8(block, _mm_set1_epi8(c)); };
  const __m128i escaped =
      _mm_or_si128(_mm_or_si128(is('#'), is('$')), _mm_or_si128(is('}'), is('*')));
  const auto special = static_cast<unsigned>(_mm_movemask_epi8(escaped));
  const auto repeated =
      static_cast<unsigned>(_mm_movemask_epi8(_mm_cmpeq_epi8(block, load_block(from + 1))));
  static_assert(kLeastRepeat == 3);
  const unsigned end = special | (repeated & repeated >> 1 & repeated >> 2);
  return static_cast<std::size_t>(std::countr_zero(end | 1U << kBlock));
}

std::uint8_t sum_of(std::string_view bytes) noexcept {
  __m128i sums = _mm_setzero_si128();
  std::size_t i = 0;
  for (; i + kBlock <= bytes.size(); i += kBlock) {
    sums = _mm_add_epi64(sums, _mm_sad_epu8(load_block(bytes.data() + i), _mm_setzero_si128()));
  }
  auto sum = static_cast<std::uint64_t>(_mm_cvtsi128_si64(sums)) +
             static_cast<std::uint64_t>(_mm_cvtsi128_si64(_mm_unpackhi_epi64(sums, sums)));
  for (; i < bytes.size(); ++i) sum += static_cast<unsigned char>(bytes[i]);
  return static_cast<std::uint8_t>(sum);
}

// The first byte of `rest` with its repetitions, to where `out` is, which is moved on; how many
// bytes of `rest` that was.
std::size_t encode_one(std::string_view rest, char*& out) noexcept {
  const char c = rest.front();
  if (needs_escape(c)) {
    *out++ = '}';
    *out++ = static_cast<char>(c ^ 0x20);
    return 1;
  }
  *out++ = c;
  rest = rest.substr(0, kMostRepeat + 1);
  const auto other = std::find_if(rest.begin(), rest.end(), [c](char d) { return d != c; });
  const std::size_t repeat = shortened(static_cast<std::size_t>(other - rest.begin()) - 1);
  if (repeat != 0) {
    *out++ = '*';
    *out++ = static_cast<char>(repeat + kRepeatBase);
  }
  return repeat + 1;
}

}  // namespace

// Memory is read in large packets: what is neither escaped nor repeated goes block by block.
std::string encode_packet(std::string_view payload) {
  std::string packet(2 * payload.size() + 4, '$');
  char* out = packet.data() + 1;
  while (!payload.empty()) {
    if (payload.size() > kBlock) {
      const std::size_t plain = plain_bytes(payload.data());
      std::memcpy(out, payload.data(), kBlock);
      out += plain;
      payload.remove_prefix(plain);
      if (plain == kBlock) continue;
    }
    payload.remove_prefix(encode_one(payload, out));
  }
  const auto size = static_cast<std::size_t>(out - packet.data());
  const std::uint8_t sum = sum_of(std::string_view(packet).substr(1, size - 1));
  packet.resize(size);
  packet += '#';
  packet += kDigits[sum >> 4];
  packet += kDigits[sum & 15];
  return packet;
}

}  // namespace vmm::debug
