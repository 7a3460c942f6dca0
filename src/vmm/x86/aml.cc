#include "vmm/x86/aml.h"

#include <algorithm>
#include <array>

#include "base/assert.h"
#include "base/le.h"

namespace vmm::x86::aml {
namespace {

// Opcodes (ACPI 6.5, table 20.2) and prefixes.
constexpr std::uint8_t kZeroOp = 0x00;
constexpr std::uint8_t kOneOp = 0x01;
constexpr std::uint8_t kNameOp = 0x08;
constexpr std::uint8_t kBytePrefix = 0x0a;
constexpr std::uint8_t kWordPrefix = 0x0b;
constexpr std::uint8_t kDWordPrefix = 0x0c;
constexpr std::uint8_t kStringPrefix = 0x0d;
constexpr std::uint8_t kQWordPrefix = 0x0e;
constexpr std::uint8_t kScopeOp = 0x10;
constexpr std::uint8_t kBufferOp = 0x11;
constexpr std::uint8_t kPackageOp = 0x12;
constexpr std::uint8_t kMethodOp = 0x14;
constexpr std::uint8_t kDualNamePrefix = 0x2e;
constexpr std::uint8_t kMultiNamePrefix = 0x2f;
constexpr std::uint8_t kExtOpPrefix = 0x5b;
constexpr std::uint8_t kRegionOp = 0x80;  // these after kExtOpPrefix
constexpr std::uint8_t kFieldOp = 0x81;
constexpr std::uint8_t kDeviceOp = 0x82;
constexpr std::uint8_t kLocal0Op = 0x60;
constexpr std::uint8_t kArg0Op = 0x68;
constexpr std::uint8_t kStoreOp = 0x70;
constexpr std::uint8_t kAndOp = 0x7b;
constexpr std::uint8_t kOrOp = 0x7d;
constexpr std::uint8_t kNotifyOp = 0x86;
constexpr std::uint8_t kCreateDWordFieldOp = 0x8a;
constexpr std::uint8_t kLNotOp = 0x92;
constexpr std::uint8_t kLEqualOp = 0x93;
constexpr std::uint8_t kIfOp = 0xa0;
constexpr std::uint8_t kReturnOp = 0xa4;
constexpr std::uint8_t kNullName = 0x00;

constexpr std::size_t kSegmentSize = 4;

void add(Term& term, std::uint64_t value, std::size_t size) {
  std::array<std::byte, 8> bytes{};
  store_le(bytes, value);
  for (std::size_t i = 0; i < size; ++i) term.push_back(bytes[i]);
}

void add(Term& term, const Term& other) { term.insert(term.end(), other.begin(), other.end()); }

// A package length counts its own bytes too: the smallest form that can hold the sum (20.2.4).
Term package_length(std::size_t content) {
  Term term;
  if (content + 1 < 0x40) {
    add(term, content + 1, 1);
    return term;
  }
  std::size_t extra = 1;  // bytes after the lead byte, each eight more bits after the first four
  while (content + 1 + extra >= std::size_t{1} << (4 + 8 * extra)) ++extra;
  VMM_ASSERT(extra <= 3);
  const std::size_t total = content + 1 + extra;
  add(term, extra << 6 | (total & 0xf), 1);
  add(term, total >> 4, extra);
  return term;
}

// A field's width in bits has the form of a package length that does not count itself (20.2.5.2).
Term field_width(std::size_t bits) {
  VMM_ASSERT(bits < 0x40);
  Term term;
  add(term, bits, 1);
  return term;
}

// Opcode bytes, package length, content.
Term packaged(std::initializer_list<std::uint8_t> opcode, const Term& content) {
  Term term;
  for (const std::uint8_t byte : opcode) add(term, byte, 1);
  add(term, package_length(content.size()));
  add(term, content);
  return term;
}

bool is_lead_name_char(char c) { return (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_name_char(char c) { return is_lead_name_char(c) || (c >= '0' && c <= '9'); }

void add_segment(Term& term, std::string_view segment) {
  VMM_ASSERT(!segment.empty() && segment.size() <= kSegmentSize && is_lead_name_char(segment[0]) &&
             std::all_of(segment.begin(), segment.end(), is_name_char));
  for (std::size_t i = 0; i < kSegmentSize; ++i) {
    add(term, static_cast<std::uint8_t>(i < segment.size() ? segment[i] : '_'), 1);
  }
}

std::uint32_t hex_digit(char c) {
  VMM_ASSERT((c >= '0' && c <= '9') || (c >= 'A' && c <= 'F'));
  return static_cast<std::uint32_t>(c <= '9' ? c - '0' : c - 'A' + 10);
}

}  // namespace

Term join(const Terms& terms) {
  Term all;
  for (const Term& term : terms) add(all, term);
  return all;
}

Term integer(std::uint64_t value) {
  Term term;
  const auto prefixed = [&](std::uint8_t prefix, std::size_t size) {
    add(term, prefix, 1);
    add(term, value, size);
  };
  if (value <= 1) {
    add(term, value == 0 ? kZeroOp : kOneOp, 1);
  } else if (value <= 0xff) {
    prefixed(kBytePrefix, 1);
  } else if (value <= 0xffff) {
    prefixed(kWordPrefix, 2);
  } else if (value <= 0xffff'ffff) {
    prefixed(kDWordPrefix, 4);
  } else {
    prefixed(kQWordPrefix, 8);
  }
  return term;
}

Term string(std::string_view text) {
  Term term;
  add(term, kStringPrefix, 1);
  for (const char c : text) {
    VMM_ASSERT(c > 0);
    add(term, static_cast<std::uint8_t>(c), 1);
  }
  add(term, 0, 1);
  return term;
}

Term buffer(std::span<const std::byte> bytes) {
  Term content = integer(bytes.size());
  content.insert(content.end(), bytes.begin(), bytes.end());
  return packaged({kBufferOp}, content);
}

Term package(const Terms& elements) {
  VMM_ASSERT(elements.size() <= 255);
  Term content;
  add(content, elements.size(), 1);
  add(content, join(elements));
  return packaged({kPackageOp}, content);
}

Term eisa_id(std::string_view id) {
  VMM_ASSERT(id.size() == 7);
  std::uint32_t value = 0;
  for (const char c : id.substr(0, 3)) {
    VMM_ASSERT(c >= 'A' && c <= 'Z');
    value = value << 5 | static_cast<std::uint32_t>(c - '@');
  }
  for (const char c : id.substr(3)) value = value << 4 | hex_digit(c);
  // The bytes lie in big-endian order; always as a DWord, whatever the value.
  Term term;
  add(term, kDWordPrefix, 1);
  add(term, __builtin_bswap32(value), 4);
  return term;
}

Term uuid(std::string_view text) {
  // Where each byte of the buffer stands in the text (ACPI 6.5, 19.6.142).
  constexpr std::array<std::size_t, 16> kDigits{6,  4,  2,  0,  11, 9,  16, 14,
                                                19, 21, 24, 26, 28, 30, 32, 34};
  VMM_ASSERT(text.size() == 36);
  std::array<std::byte, kDigits.size()> bytes{};
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] =
        static_cast<std::byte>(hex_digit(text[kDigits[i]]) << 4 | hex_digit(text[kDigits[i] + 1]));
  }
  return buffer(bytes);
}

Term path(std::string_view text) {
  Term term;
  while (!text.empty() && (text[0] == '\\' || text[0] == '^')) {
    add(term, static_cast<std::uint8_t>(text[0]), 1);
    text.remove_prefix(1);
  }
  Term segments;
  while (!text.empty()) {
    const std::size_t dot = std::min(text.find('.'), text.size());
    add_segment(segments, text.substr(0, dot));
    text.remove_prefix(std::min(dot + 1, text.size()));
  }
  const std::size_t count = segments.size() / kSegmentSize;
  VMM_ASSERT(count <= 255);
  if (count == 0) add(term, kNullName, 1);
  if (count == 2) add(term, kDualNamePrefix, 1);
  if (count > 2) {
    add(term, kMultiNamePrefix, 1);
    add(term, count, 1);
  }
  add(term, segments);
  return term;
}

Term name(std::string_view where, const Term& value) {
  Term term;
  add(term, kNameOp, 1);
  add(term, path(where));
  add(term, value);
  return term;
}

Term scope(std::string_view where, const Terms& terms) {
  return packaged({kScopeOp}, join({path(where), join(terms)}));
}

Term device(std::string_view where, const Terms& terms) {
  return packaged({kExtOpPrefix, kDeviceOp}, join({path(where), join(terms)}));
}

Term method(std::string_view where, unsigned arguments, const Terms& terms, Serialize serialize) {
  constexpr std::uint64_t kSerialized = 1U << 3;  // sync level 0
  VMM_ASSERT(arguments <= 7);
  Term content = path(where);
  add(content, arguments | (serialize == Serialize::kYes ? kSerialized : 0), 1);
  add(content, join(terms));
  return packaged({kMethodOp}, content);
}

Term return_value(const Term& value) {
  Term term;
  add(term, kReturnOp, 1);
  add(term, value);
  return term;
}

Term argument(unsigned number) {
  VMM_ASSERT(number <= 6);
  Term term;
  add(term, kArg0Op + number, 1);
  return term;
}

Term local(unsigned number) {
  VMM_ASSERT(number <= 7);
  Term term;
  add(term, kLocal0Op + number, 1);
  return term;
}

namespace {

Term operation(std::uint8_t opcode, const Terms& operands) {
  Term term;
  add(term, opcode, 1);
  add(term, join(operands));
  return term;
}

// What an operator's result is put into besides: nothing.
Term no_target() { return {std::byte{kNullName}}; }

}  // namespace

Term store(const Term& value, const Term& target) { return operation(kStoreOp, {value, target}); }

Term if_true(const Term& condition, const Terms& terms) {
  return packaged({kIfOp}, join({condition, join(terms)}));
}

Term notify(std::string_view device, std::uint64_t what) {
  return operation(kNotifyOp, {path(device), integer(what)});
}

Term port_registers(std::string_view name, std::uint16_t base,
                    std::initializer_list<std::string_view> fields) {
  constexpr std::uint8_t kSystemIo = 1;
  constexpr std::uint8_t kDWordAccess = 3;  // no lock; bits that are not written keep their value
  constexpr std::size_t kBits = 32;
  Term region;
  add(region, kExtOpPrefix, 1);
  add(region, kRegionOp, 1);
  add(region, path(name));
  add(region, kSystemIo, 1);
  add(region, integer(base));
  add(region, integer(fields.size() * kBits / 8));
  Term content = path(name);
  add(content, kDWordAccess, 1);
  for (const std::string_view field : fields) {
    add_segment(content, field);
    add(content, field_width(kBits));
  }
  return join({region, packaged({kExtOpPrefix, kFieldOp}, content)});
}

Term dword_field(const Term& buffer, std::uint64_t offset, std::string_view name) {
  return operation(kCreateDWordFieldOp, {buffer, integer(offset), path(name)});
}

Term equal(const Term& left, const Term& right) { return operation(kLEqualOp, {left, right}); }

Term no(const Term& value) { return operation(kLNotOp, {value}); }

Term bit_and(const Term& left, const Term& right) {
  return operation(kAndOp, {left, right, no_target()});
}

Term bit_or(const Term& left, const Term& right) {
  return operation(kOrOp, {left, right, no_target()});
}

// Descriptors start with a tag: small ones hold their length in it (6.4.2), large ones after it
// (6.4.3).

Term io_ports(std::uint16_t base, std::uint8_t count) {
  constexpr std::uint8_t kIoTag = 0x47;
  constexpr std::uint8_t kDecode16 = 1;
  Term term;
  add(term, kIoTag, 1);
  add(term, kDecode16, 1);
  add(term, base, 2);  // lowest
  add(term, base, 2);  // and highest base
  add(term, 1, 1);     // alignment
  add(term, count, 1);
  return term;
}

Term isa_irq(std::uint8_t irq) {
  constexpr std::uint8_t kIrqTag = 0x22;
  VMM_ASSERT(irq < 16);
  Term term;
  add(term, kIrqTag, 1);
  add(term, std::uint64_t{1} << irq, 2);
  return term;
}

Term memory32(std::uint32_t base, std::uint32_t size) {
  constexpr std::uint8_t kMemory32FixedTag = 0x86;
  constexpr std::uint8_t kReadWrite = 1;
  Term term;
  add(term, kMemory32FixedTag, 1);
  add(term, 9, 2);
  add(term, kReadWrite, 1);
  add(term, base, 4);
  add(term, size, 4);
  return term;
}

Term interrupt(std::uint32_t gsi, Trigger trigger, Polarity polarity, Sharing sharing) {
  constexpr std::uint8_t kExtendedInterruptTag = 0x89;
  constexpr unsigned kConsumer = 1U << 0;
  const unsigned edge = trigger == Trigger::kEdge ? 1U << 1 : 0;
  const unsigned low = polarity == Polarity::kActiveLow ? 1U << 2 : 0;
  const unsigned shared = sharing == Sharing::kShared ? 1U << 3 : 0;
  Term term;
  add(term, kExtendedInterruptTag, 1);
  add(term, 6, 2);
  add(term, kConsumer | edge | low | shared, 1);
  add(term, 1, 1);  // one interrupt
  add(term, gsi, 4);
  return term;
}

namespace {

// Address space descriptors (6.4.3.5): all fields are of one width.
Term address_window(std::uint8_t tag, std::size_t width, std::uint8_t type, std::uint8_t flags,
                    std::uint64_t first, std::uint64_t last) {
  constexpr std::uint8_t kBothEndsFixed = 0x0c;  // producer, positive decode
  Term term;
  add(term, tag, 1);
  add(term, 3 + 5 * width, 2);
  add(term, type, 1);
  add(term, kBothEndsFixed, 1);
  add(term, flags, 1);
  add(term, 0, width);  // granularity
  add(term, first, width);
  add(term, last, width);
  add(term, 0, width);  // translation
  add(term, last - first + 1, width);
  return term;
}

constexpr std::uint8_t kWordSpaceTag = 0x88;
constexpr std::uint8_t kDWordSpaceTag = 0x87;

}  // namespace

Term bus_numbers(std::uint16_t first, std::uint16_t last) {
  constexpr std::uint8_t kBusNumbers = 2;
  return address_window(kWordSpaceTag, 2, kBusNumbers, 0, first, last);
}

Term io_window(std::uint16_t first, std::uint16_t last) {
  constexpr std::uint8_t kIo = 1, kEntireRange = 3;
  return address_window(kWordSpaceTag, 2, kIo, kEntireRange, first, last);
}

Term memory_window(std::uint32_t first, std::uint32_t last) {
  constexpr std::uint8_t kMemory = 0, kReadWrite = 1;
  return address_window(kDWordSpaceTag, 4, kMemory, kReadWrite, first, last);
}

Term resource_template(const Terms& descriptors) {
  constexpr std::uint8_t kEndTag = 0x79;
  Term content = join(descriptors);
  add(content, kEndTag, 1);
  add(content, 0, 1);  // a checksum of zero counts as right (6.4.2.9)
  return buffer(content);
}

}  // namespace vmm::x86::aml
