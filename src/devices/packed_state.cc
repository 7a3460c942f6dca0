#include "devices/packed_state.h"

#include <bit>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

namespace vmm {
namespace {

using Kind = PackedState::Kind;
using Item = PackedState::Item;

constexpr std::size_t kMostDepth = 64;  // whoever walks through a document may use the stack
constexpr std::size_t kMostItems = std::size_t{1} << 26;

// The first byte of an item (RFC 8949, 3): what it is, and how large its argument.
enum Major : unsigned {
  kMajorUnsigned = 0,
  kMajorNegative = 1,
  kMajorBytes = 2,
  kMajorText = 3,
  kMajorList = 4,
  kMajorMap = 5,
  kMajorOther = 7,
};
constexpr unsigned kArgumentIsByte = 24;  // and 25 to 27 for 2, 4 and 8 bytes
constexpr unsigned kSimpleFalse = 20, kSimpleTrue = 21, kSimpleNull = 22;
constexpr unsigned kFloat = 26, kDouble = 27;

std::span<const std::byte> bytes_in(std::span<const std::byte> cbor, const Item& item) {
  return cbor.subspan(item.number >> 32, item.number & 0xffffffff);
}

std::string_view text_in(std::span<const std::byte> cbor, const Item& item) {
  const std::span<const std::byte> in = bytes_in(cbor, item);
  return {reinterpret_cast<const char*>(in.data()), in.size()};
}

class Parser {
 public:
  explicit Parser(std::span<const std::byte> cbor) : cbor_(cbor) {
    items_.reserve(cbor.size() / 8 + 1);
  }

  // Whether there is one document, and nothing behind it.
  bool parse() {
    do {
      if (!take_item()) return false;
      leave_what_is_full();
    } while (!open_.empty());
    return at_ == cbor_.size();
  }
  std::vector<Item> take() { return std::move(items_); }

 private:
  struct Open {
    std::uint32_t item;
    std::uint64_t missing;  // of the items in it
    bool names;             // every other one is a name, beginning with the first
    std::uint32_t last_name = 0;
  };

  std::size_t left() const { return cbor_.size() - at_; }

  // The number behind the first byte, or in it. The extra ones of RFC 8949, 3, are none.
  std::optional<std::uint64_t> argument(unsigned info) {
    if (info < kArgumentIsByte) return info;
    if (info > kDouble) return std::nullopt;
    const std::size_t size = std::size_t{1} << (info - kArgumentIsByte);
    if (left() < size) return std::nullopt;
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < size; ++i) {
      value = value << 8 | std::to_integer<std::uint64_t>(cbor_[at_++]);
    }
    return value;
  }

  bool put(Kind kind, std::uint64_t number) {
    if (items_.size() == kMostItems) return false;
    items_.push_back({.number = number, .kind = kind});
    items_.back().end = static_cast<std::uint32_t>(items_.size());
    return true;
  }

  bool put_string(Kind kind, std::uint64_t size) {
    if (size > left() || at_ > std::numeric_limits<std::uint32_t>::max() ||
        size > std::numeric_limits<std::uint32_t>::max()) {
      return false;
    }
    const std::size_t begin = at_;
    at_ += static_cast<std::size_t>(size);
    return put(kind, std::uint64_t{begin} << 32 | size);
  }

  // Each item takes a byte at least: nobody makes us count further.
  bool enter(Kind kind, std::uint64_t count) {
    const std::uint64_t each = kind == Kind::kStructure ? 2 : 1;
    if (count > left() / each || open_.size() == kMostDepth) return false;
    if (!put(kind, count)) return false;
    open_.push_back({.item = static_cast<std::uint32_t>(items_.size() - 1),
                     .missing = count * each,
                     .names = kind == Kind::kStructure});
    return true;
  }

  bool put_other(unsigned info, std::uint64_t number) {
    switch (info) {
      case kSimpleFalse:
        return put(Kind::kFalse, 0);
      case kSimpleTrue:
        return put(Kind::kTrue, 0);
      case kSimpleNull:
        return put(Kind::kNothing, 0);
      case kFloat:
        return put(Kind::kReal, std::bit_cast<std::uint64_t>(static_cast<double>(
                                    std::bit_cast<float>(static_cast<std::uint32_t>(number)))));
      case kDouble:
        return put(Kind::kReal, number);
      default:
        return false;
    }
  }

  // Each behind the one before it: so none is there twice.
  bool take_name(Open& in, std::uint64_t size) {
    if (!put_string(Kind::kText, size)) return false;
    const auto name = static_cast<std::uint32_t>(items_.size() - 1);
    if (in.last_name != 0 && text_in(cbor_, items_[in.last_name]) >= text_in(cbor_, items_[name])) {
      return false;
    }
    in.last_name = name;
    return true;
  }

  bool take_item() {
    if (left() == 0) return false;
    Open* const in = open_.empty() ? nullptr : &open_.back();
    const bool name = in != nullptr && in->names && in->missing % 2 == 0;
    if (in != nullptr) --in->missing;
    const auto first = std::to_integer<unsigned>(cbor_[at_++]);
    const unsigned major = first >> 5, info = first & 31;
    const auto number = argument(info);
    if (!number) return false;
    if (name) return major == kMajorText && take_name(*in, *number);
    switch (major) {
      case kMajorUnsigned:
        return put(Kind::kUnsigned, *number);
      case kMajorNegative:
        return std::in_range<std::int64_t>(*number) && put(Kind::kNegative, *number);
      case kMajorBytes:
        return put_string(Kind::kBytes, *number);
      case kMajorText:
        return put_string(Kind::kText, *number);
      case kMajorList:
        return enter(Kind::kList, *number);
      case kMajorMap:
        return enter(Kind::kStructure, *number);
      case kMajorOther:
        return put_other(info, *number);
      default:
        return false;
    }
  }

  void leave_what_is_full() {
    while (!open_.empty() && open_.back().missing == 0) {
      items_[open_.back().item].end = static_cast<std::uint32_t>(items_.size());
      open_.pop_back();
    }
  }

  std::span<const std::byte> cbor_;
  std::size_t at_ = 0;
  std::vector<Item> items_;
  std::vector<Open> open_;
};

}  // namespace

Result<PackedState> PackedState::parse(std::vector<std::byte> cbor) {
  Parser parser(cbor);
  if (!parser.parse()) {
    return fail(ErrorCode::kBadState, "It is no CBOR, or nothing that a state could be");
  }
  return PackedState(std::move(cbor), parser.take());
}

PackedState PackedState::of(const nlohmann::json& value) {
  const std::vector<std::uint8_t> cbor = nlohmann::json::to_cbor(value);
  const auto bytes = std::as_bytes(std::span(cbor));
  // What a state is made of can be read; of anything else there is nothing.
  auto packed = parse({bytes.begin(), bytes.end()});
  return packed ? *std::move(packed) : PackedState({}, {Item{.end = 1}});
}

std::span<const std::byte> PackedState::bytes(const Item& item) const noexcept {
  return bytes_in(cbor_, item);
}

std::string_view PackedState::text(const Item& item) const noexcept { return text_in(cbor_, item); }

nlohmann::json PackedState::json(std::uint32_t index) const {
  const Item& value = items_[index];
  switch (value.kind) {
    case Kind::kNothing:
      return nullptr;
    case Kind::kFalse:
      return false;
    case Kind::kTrue:
      return true;
    case Kind::kUnsigned:
      return value.number;
    case Kind::kNegative:
      return -1 - static_cast<std::int64_t>(value.number);
    case Kind::kReal:
      return std::bit_cast<double>(value.number);
    case Kind::kBytes: {
      const auto* const begin = reinterpret_cast<const std::uint8_t*>(bytes(value).data());
      return nlohmann::json::binary({begin, begin + bytes(value).size()});
    }
    case Kind::kText:
      return text(value);
    case Kind::kList: {
      auto list = nlohmann::json::array();
      for (std::uint32_t i = index + 1; i < value.end; i = items_[i].end) list.push_back(json(i));
      return list;
    }
    case Kind::kStructure: {
      auto members = nlohmann::json::object();
      for (std::uint32_t i = index + 1; i < value.end; i = items_[i + 1].end) {
        members[std::string(text(items_[i]))] = json(i + 1);
      }
      return members;
    }
  }
  return nullptr;
}

}  // namespace vmm
