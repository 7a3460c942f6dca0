#include "vmm/guest_linux/kernel_log.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>

namespace vmm::guest_linux {
namespace {

constexpr auto kStructs =
    std::to_array<std::string_view>({"printk_ringbuffer", "prb_desc_ring", "prb_desc",
                                     "prb_data_ring", "prb_data_blk_lpos", "printk_info"});
constexpr std::size_t kMostText = std::size_t{4} << 20;
constexpr std::size_t kMostRecord = 64 * 1024;  // text_len has 16 bits
// log_buf_len= allows 2 GiB of text, for each 32 bytes of which there is a descriptor.
constexpr std::uint64_t kMostSizeBits = 31;
constexpr std::uint64_t kMostCountBits = 26;

// A descriptor's state is in the two highest bits of its state_var, its ID in the others.
constexpr unsigned kStateShift = 62;
constexpr std::uint64_t kIdMask = (std::uint64_t{1} << kStateShift) - 1;
enum State : std::uint64_t { kReserved = 0, kCommitted = 1, kFinalized = 2, kReusable = 3 };
// A position with this bit is that of no data.
constexpr std::uint64_t kNoData = 1;
// Before the text of a block, its descriptor's ID.
constexpr std::uint64_t kBlockHead = 8;

class Ring {
 public:
  static Result<Ring> open(const GuestKernel& kernel) {
    Ring ring(kernel.memory(), VMM_TRY(kernel.layouts(kStructs)));
    const std::uint64_t variable = VMM_TRY(kernel.symbol("prb"));
    const auto at = VMM_TRY(ring.memory_->read<std::uint64_t>(variable));
    const auto descriptors = VMM_TRY(ring.at("printk_ringbuffer", "desc_ring"));
    const auto texts = VMM_TRY(ring.at("printk_ringbuffer", "text_data_ring"));
    VMM_TRY(ring.open_descriptors(at + descriptors));
    VMM_TRY(ring.open_texts(at + texts));
    return ring;
  }

  // The IDs of the oldest and the newest descriptor; how many there may be.
  std::uint64_t tail() const noexcept { return tail_; }
  std::uint64_t head() const noexcept { return head_; }
  std::uint64_t count() const noexcept { return count_; }

  // Nothing when the descriptor has no record, or another one by now.
  Result<std::optional<LogRecord>> read(std::uint64_t id) const {
    const std::uint64_t index = id & (count_ - 1);
    const std::uint64_t at = descriptors_ + index * descriptor_size_;
    const auto state = VMM_TRY(memory_->read<std::uint64_t>(at + state_at_));
    const std::uint64_t kind = state >> kStateShift;
    if ((state & kIdMask) != id || (kind != kCommitted && kind != kFinalized)) return std::nullopt;
    const std::uint64_t info = infos_ + index * info_size_;
    LogRecord record{.sequence = VMM_TRY(memory_->read<std::uint64_t>(info + sequence_at_)),
                     .nanoseconds = VMM_TRY(memory_->read<std::uint64_t>(info + time_at_)),
                     .text = {}};
    const auto length = VMM_TRY(memory_->read<std::uint16_t>(info + length_at_));
    const auto begin = VMM_TRY(memory_->read<std::uint64_t>(at + position_at_ + begin_at_));
    const auto next = VMM_TRY(memory_->read<std::uint64_t>(at + position_at_ + next_at_));
    record.text = VMM_TRY(text(id, begin, next, length));
    return record;
  }

 private:
  Ring(const KernelMemory& memory, Layouts layouts)
      : memory_(&memory), layouts_(std::move(layouts)) {}

  Result<std::uint64_t> at(std::string_view name, std::string_view field) const {
    return layouts_.offset(name, field);
  }

  Result<void> open_descriptors(std::uint64_t ring) {
    const auto bits_at = VMM_TRY(at("prb_desc_ring", "count_bits"));
    const auto bits = VMM_TRY(memory_->read<std::uint32_t>(ring + bits_at));
    if (bits > kMostCountBits) {
      return fail(ErrorCode::kBadState, "The kernel's log has 2^{} descriptors", bits);
    }
    count_ = std::uint64_t{1} << bits;
    const auto value = [&](std::string_view field) -> Result<std::uint64_t> {
      const auto offset = VMM_TRY(at("prb_desc_ring", field));
      return memory_->read<std::uint64_t>(ring + offset);
    };
    descriptors_ = VMM_TRY(value("descs"));
    infos_ = VMM_TRY(value("infos"));
    head_ = VMM_TRY(value("head_id")) & kIdMask;
    tail_ = VMM_TRY(value("tail_id")) & kIdMask;
    descriptor_size_ = VMM_TRY(layouts_.need_size("prb_desc"));
    info_size_ = VMM_TRY(layouts_.need_size("printk_info"));
    state_at_ = VMM_TRY(at("prb_desc", "state_var"));
    position_at_ = VMM_TRY(at("prb_desc", "text_blk_lpos"));
    begin_at_ = VMM_TRY(at("prb_data_blk_lpos", "begin"));
    next_at_ = VMM_TRY(at("prb_data_blk_lpos", "next"));
    sequence_at_ = VMM_TRY(at("printk_info", "seq"));
    time_at_ = VMM_TRY(at("printk_info", "ts_nsec"));
    length_at_ = VMM_TRY(at("printk_info", "text_len"));
    return {};
  }

  Result<void> open_texts(std::uint64_t ring) {
    const auto bits_at = VMM_TRY(at("prb_data_ring", "size_bits"));
    const auto bits = VMM_TRY(memory_->read<std::uint32_t>(ring + bits_at));
    if (bits > kMostSizeBits) {
      return fail(ErrorCode::kBadState, "The kernel's log has 2^{} bytes of text", bits);
    }
    texts_size_ = std::uint64_t{1} << bits;
    const auto data_at = VMM_TRY(at("prb_data_ring", "data"));
    texts_ = VMM_TRY(memory_->read<std::uint64_t>(ring + data_at));
    return {};
  }

  // Of the block [begin, next), which begins at the buffer's start when it would not fit before its
  // end. Positions count on without end.
  Result<std::string> text(std::uint64_t id, std::uint64_t begin, std::uint64_t next,
                           std::size_t length) const {
    if ((begin & kNoData) != 0 || length == 0) return std::string();
    const std::uint64_t mask = texts_size_ - 1;
    std::uint64_t from = begin & mask, to = next & mask;
    if (to == 0) to = texts_size_;
    if (from > to) from = 0;
    if (to - from <= kBlockHead) return std::string();
    if (VMM_TRY(memory_->read<std::uint64_t>(texts_ + from)) != id) return std::string();
    from += kBlockHead;
    const std::uint64_t size = std::min<std::uint64_t>({length, to - from, kMostRecord});
    std::string raw(static_cast<std::size_t>(size), '\0');
    VMM_TRY(memory_->read(texts_ + from, std::as_writable_bytes(std::span(raw))));
    std::string out;
    for (std::size_t at = 0; at <= raw.size();) {
      const std::size_t end = std::min(raw.find('\n', at), raw.size());
      if (at != 0) out += '\n';
      out += printable(std::string_view(raw).substr(at, end - at));
      at = end + 1;
    }
    return out;
  }

  const KernelMemory* memory_;
  Layouts layouts_;
  std::uint64_t count_ = 0, head_ = 0, tail_ = 0;
  std::uint64_t descriptors_ = 0, descriptor_size_ = 0, state_at_ = 0, position_at_ = 0;
  std::uint64_t begin_at_ = 0, next_at_ = 0;
  std::uint64_t infos_ = 0, info_size_ = 0, sequence_at_ = 0, time_at_ = 0, length_at_ = 0;
  std::uint64_t texts_ = 0, texts_size_ = 0;
};

}  // namespace

Result<std::vector<LogRecord>> read_kernel_log(const GuestKernel& kernel, std::size_t most) {
  const Ring ring = VMM_TRY(Ring::open(kernel));
  // From the newest one backwards, so that a bound leaves out the oldest.
  const std::uint64_t held = ((ring.head() - ring.tail()) & kIdMask) + 1;
  const std::uint64_t count = std::min<std::uint64_t>({held, ring.count(), most});
  std::vector<LogRecord> records;
  std::size_t bytes = 0;
  for (std::uint64_t i = 0; i < count && bytes < kMostText; ++i) {
    auto record = VMM_TRY(ring.read((ring.head() - i) & kIdMask));
    if (!record) continue;
    bytes += record->text.size() + sizeof(LogRecord);
    records.push_back(std::move(*record));
  }
  std::reverse(records.begin(), records.end());
  return records;
}

std::string format_kernel_log(const std::vector<LogRecord>& records) {
  constexpr std::uint64_t kSecond = 1'000'000'000, kMicrosecond = 1'000;
  std::string all;
  for (const LogRecord& record : records) {
    const std::string time = fmt::format("[{:5}.{:06}] ", record.nanoseconds / kSecond,
                                         record.nanoseconds % kSecond / kMicrosecond);
    std::string_view rest = record.text;
    do {
      const std::string_view line = rest.substr(0, rest.find('\n'));
      rest.remove_prefix(std::min(line.size() + 1, rest.size()));
      all += time;
      all += line;
      all += '\n';
    } while (!rest.empty());
  }
  return all;
}

}  // namespace vmm::guest_linux
