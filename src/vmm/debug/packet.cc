#include "vmm/debug/packet.h"

#include <algorithm>
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

std::string encode_packet(std::string_view payload) {
  std::string packet = "$";
  packet.reserve(payload.size() + 4);
  for (std::size_t i = 0; i < payload.size(); ++i) {
    const char c = payload[i];
    if (needs_escape(c)) {
      packet += '}';
      packet += static_cast<char>(c ^ 0x20);
      continue;
    }
    packet += c;
    const std::size_t end = std::min(payload.find_first_not_of(c, i), payload.size());
    const std::size_t repeat = shortened(end - i - 1);
    if (repeat == 0) continue;
    packet += '*';
    packet += static_cast<char>(repeat + kRepeatBase);
    i += repeat;
  }
  std::uint8_t sum = 0;
  for (const char c : std::string_view(packet).substr(1)) {
    sum = static_cast<std::uint8_t>(sum + static_cast<unsigned char>(c));
  }
  packet += '#';
  packet += kDigits[sum >> 4];
  packet += kDigits[sum & 15];
  return packet;
}

}  // namespace vmm::debug
