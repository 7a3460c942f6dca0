#include "vmm/guest_linux/kallsyms.h"

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

namespace vmm::guest_linux {
namespace {

constexpr std::uint32_t kMostNames = 4'000'000;  // a distribution's kernel has 150 000
constexpr std::uint64_t kMostTable = 128ULL << 20;
constexpr std::size_t kTokens = 256;

// Bytes from an address on, fetched a page at a time.
class Stream {
 public:
  Stream(const KernelMemory& memory, std::uint64_t address) : memory_(memory), next_(address) {}

  Result<std::uint8_t> byte() {
    if (at_ == bytes_.size()) VMM_TRY(fetch());
    return static_cast<std::uint8_t>(bytes_[at_++]);
  }

 private:
  // Up to the end of the page: the next one need not be mapped.
  Result<void> fetch() {
    if (fetched_ > kMostTable) return fail(ErrorCode::kBadState, "The kernel's names do not end");
    const std::uint64_t size = kPage - next_ % kPage;
    bytes_.resize(static_cast<std::size_t>(size));
    VMM_TRY(memory_.read(next_, bytes_));
    next_ += size;
    fetched_ += size;
    at_ = 0;
    return {};
  }

  static constexpr std::uint64_t kPage = 4096;
  const KernelMemory& memory_;
  std::uint64_t next_;
  std::uint64_t fetched_ = 0;
  std::vector<std::byte> bytes_;
  std::size_t at_ = 0;
};

// Pieces of names by their number, scripts/kallsyms.c of Linux.
Result<std::array<std::string, kTokens>> read_tokens(const KernelMemory& memory,
                                                     std::uint64_t table) {
  std::array<std::string, kTokens> tokens;
  Stream stream(memory, table);
  for (std::string& token : tokens) {
    constexpr std::size_t kMostToken = 512;
    while (const std::uint8_t c = VMM_TRY(stream.byte())) {
      token += static_cast<char>(c);
      if (token.size() > kMostToken) {
        return fail(ErrorCode::kBadState, "The kernel's table of names is none");
      }
    }
  }
  return tokens;
}

// Addresses by number: whole ones, or distances from one.
class Addresses {
 public:
  static Result<Addresses> open(const KernelMemory& memory, const VmcoreinfoTable& table,
                                std::uint32_t count) {
    Addresses all(memory);
    if (const auto whole = table.symbol("kallsyms_addresses")) {
      all.table_ = *whole;
      return all;
    }
    const auto offsets = table.symbol("kallsyms_offsets");
    const auto base = table.symbol("kallsyms_relative_base");
    if (!offsets || !base) return fail(ErrorCode::kUnsupported, "It does not say where they are");
    all.table_ = *offsets;
    all.base_ = VMM_TRY(memory.read<std::uint64_t>(*base));
    // With CONFIG_KALLSYMS_ABSOLUTE_PERCPU what lies in the kernel is counted downwards, and other
    // numbers are addresses. The last one is the highest: of the kernel.
    const auto last =
        VMM_TRY(memory.read<std::int32_t>(*offsets + sizeof(std::int32_t) * (count - 1)));
    all.downwards_ = last < 0;
    return all;
  }

  Result<std::uint64_t> at(std::uint32_t number) const {
    if (!base_) return memory_->read<std::uint64_t>(table_ + sizeof(std::uint64_t) * number);
    const auto offset =
        VMM_TRY(memory_->read<std::int32_t>(table_ + sizeof(std::int32_t) * number));
    if (!downwards_) return *base_ + static_cast<std::uint32_t>(offset);
    if (offset >= 0) return static_cast<std::uint64_t>(offset);
    return *base_ - 1 - static_cast<std::uint64_t>(std::int64_t{offset});
  }

 private:
  explicit Addresses(const KernelMemory& memory) : memory_(&memory) {}
  const KernelMemory* memory_;
  std::uint64_t table_ = 0;
  std::optional<std::uint64_t> base_;
  bool downwards_ = false;
};

}  // namespace

Result<std::map<std::string, std::uint64_t, std::less<>>> find_kallsyms(
    const KernelMemory& memory, const VmcoreinfoTable& table,
    std::span<const std::string_view> wanted) {
  const auto names = table.symbol("kallsyms_names"), count_at = table.symbol("kallsyms_num_syms");
  const auto tokens_at = table.symbol("kallsyms_token_table");
  if (!names || !count_at || !tokens_at) {
    return fail(ErrorCode::kUnsupported, "The kernel does not say where its names are");
  }
  const auto count = VMM_TRY(memory.read<std::uint32_t>(*count_at));
  if (count == 0 || count > kMostNames) {
    return fail(ErrorCode::kBadState, "The kernel says that it has {} names", count);
  }
  const auto tokens = VMM_TRY(read_tokens(memory, *tokens_at));
  const Addresses addresses = VMM_TRY(Addresses::open(memory, table, count));
  std::map<std::string, std::uint64_t, std::less<>> found;
  Stream stream(memory, *names);
  std::string name;
  for (std::uint32_t number = 0; number < count && found.size() < wanted.size(); ++number) {
    // One byte for the length of most; of long ones (Linux 6.1) its low seven bits, then the rest.
    std::size_t length = VMM_TRY(stream.byte());
    if ((length & 0x80) != 0) {
      length = (length & 0x7f) | static_cast<std::size_t>(VMM_TRY(stream.byte())) << 7;
    }
    name.clear();
    for (std::size_t i = 0; i < length; ++i) {
      // No name that is wanted is as long: what follows is read, and not kept.
      constexpr std::size_t kMostName = 256;
      const std::string& token = tokens[VMM_TRY(stream.byte())];
      if (name.size() < kMostName) name += token;
    }
    if (name.empty()) continue;
    const std::string_view plain = std::string_view(name).substr(1);  // behind the type
    if (std::find(wanted.begin(), wanted.end(), plain) == wanted.end()) continue;
    found.emplace(plain, VMM_TRY(addresses.at(number)));
  }
  return found;
}

}  // namespace vmm::guest_linux
