// Packets of gdb's remote serial protocol: framing, checksums, escapes and run lengths (GDB manual,
// "Remote Protocol", Overview). Pure: bytes in, packets out, no I/O.
//
// Threats: bytes come from whoever connects. A packet that is longer than agreed is dropped as it
// comes, so that nothing grows; whatever stands between packets is skipped.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/size.h"

namespace vmm::debug {

// The longest payload that is understood, in bytes before unescaping; told as PacketSize.
inline constexpr std::size_t kMostPayload = KiB(256);

// What the debugger sent.
struct PacketEvent {
  enum class Kind : std::uint8_t {
    kPacket,     // `payload`, unescaped
    kBad,        // the checksum is wrong, or it is too long: to be asked for again
    kAck,        // +
    kNack,       // -
    kInterrupt,  // the byte 0x03 outside of a packet: Ctrl-C
  };
  Kind kind = Kind::kBad;
  std::string payload = {};
};

// Takes a stream of bytes apart. Holds at most one payload.
class PacketReader {
 public:
  // Consumes from the front of `bytes` up to the end of the next event; nothing when more bytes are
  // needed, which is when `bytes` is empty.
  std::optional<PacketEvent> next(std::string_view& bytes);

 private:
  enum class State : std::uint8_t { kIdle, kPayload, kEscaped, kChecksumHigh, kChecksumLow };

  std::optional<PacketEvent> take(char c);
  std::optional<PacketEvent> take_idle(char c);
  void take_payload(char c);
  PacketEvent finish(int low_digit);
  void keep(char c);

  State state_ = State::kIdle;
  std::string payload_;
  std::uint8_t sum_ = 0;
  int high_digit_ = 0;  // -1: no hexadecimal digit
  bool too_long_ = false;
};

// A payload as it goes over the wire: escaped, with runs shortened, in its frame.
std::string encode_packet(std::string_view payload);

// ---- hexadecimal numbers, as payloads have them

// The value of one digit; -1 when it is none.
int hex_digit(char c) noexcept;
// Takes a number of at most 16 digits from the front of `text`; nothing when there is none, or it
// is longer.
std::optional<std::uint64_t> take_hex(std::string_view& text) noexcept;
// Bytes as pairs of digits, and back; nothing when `digits` are no pairs.
std::string to_hex(std::string_view bytes);
std::optional<std::string> from_hex(std::string_view digits);

}  // namespace vmm::debug
