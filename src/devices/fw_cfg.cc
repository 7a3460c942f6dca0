#include "devices/fw_cfg.h"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "base/le.h"
#include "devices/state_io.h"

namespace vmm {
namespace {

constexpr std::array<std::byte, 8> kDmaSignature{std::byte{'Q'}, std::byte{'E'}, std::byte{'M'},
                                                 std::byte{'U'}, std::byte{' '}, std::byte{'C'},
                                                 std::byte{'F'}, std::byte{'G'}};
// Bits of a DMA request's control field; the item to select is in the upper half.
constexpr std::uint32_t kError = 1U << 0;
constexpr std::uint32_t kRead = 1U << 1;
constexpr std::uint32_t kSkip = 1U << 2;
constexpr std::uint32_t kSelect = 1U << 3;
constexpr std::uint32_t kWrite = 1U << 4;

std::uint64_t load_be(std::span<const std::byte> bytes) {
  std::uint64_t value = 0;
  for (const std::byte byte : bytes) value = value << 8 | std::to_integer<std::uint8_t>(byte);
  return value;
}

void append_be(std::vector<std::byte>& out, std::uint64_t value, std::size_t size) {
  for (std::size_t i = size; i-- > 0;) out.push_back(static_cast<std::byte>(value >> (8 * i)));
}

}  // namespace

FwCfg::FwCfg(std::string id, const GuestMemory* memory) : memory_(memory), id_(std::move(id)) {
  set_item(kSignature, {std::byte{'Q'}, std::byte{'E'}, std::byte{'M'}, std::byte{'U'}});
  constexpr std::byte kTraditional{1};
  constexpr std::byte kDmaToo{3};
  set_item(kFeatures, {memory_ != nullptr ? kDmaToo : kTraditional, {}, {}, {}});
  build_directory();
}

void FwCfg::set_item(std::uint16_t item, std::vector<std::byte> bytes) {
  items_.insert_or_assign(item, std::move(bytes));
}

Result<void> FwCfg::add_file(std::string_view name, std::vector<std::byte> bytes) {
  const auto printable = [](char c) { return c >= '!' && c <= '~'; };
  if (name.empty() || name.size() > kMostName ||
      !std::all_of(name.begin(), name.end(), printable)) {
    return fail(ErrorCode::kBadConfig,
                "'{}' is no name for a fw_cfg file: 1 to {} characters from '!' to '~'", name,
                kMostName);
  }
  if (files_.size() == kMostFiles) {
    return fail(ErrorCode::kBadConfig, "'{}': more than {} fw_cfg files", name, kMostFiles);
  }
  if (bytes.size() > std::numeric_limits<std::uint32_t>::max()) {
    return fail(ErrorCode::kBadConfig, "'{}': a fw_cfg file has less than 4 GiB", name);
  }
  if (!files_.emplace(name, std::move(bytes)).second) {
    return fail(ErrorCode::kBadConfig, "There are two fw_cfg files '{}'", name);
  }
  build_directory();
  return {};
}

// Files are numbered in the order of their names. The directory: their count, then size, number,
// two reserved bytes and a name of 56 bytes of each, all big-endian.
void FwCfg::build_directory() {
  std::vector<std::byte> directory;
  append_be(directory, files_.size(), 4);
  std::uint16_t number = kFirstFile;
  for (const auto& [name, bytes] : files_) {
    append_be(directory, bytes.size(), 4);
    append_be(directory, number++, 2);
    append_be(directory, 0, 2);
    const auto chars = std::as_bytes(std::span(name));
    directory.insert(directory.end(), chars.begin(), chars.end());
    directory.resize(directory.size() + kMostName + 1 - name.size());
  }
  set_item(kDirectory, std::move(directory));
}

std::span<const std::byte> FwCfg::item() const {
  if (s_.item >= kFirstFile) {
    const std::size_t index = s_.item - kFirstFile;
    if (index < files_.size()) return std::next(files_.begin(), static_cast<long>(index))->second;
    return {};
  }
  const auto found = items_.find(s_.item);
  return found == items_.end() ? std::span<const std::byte>() : found->second;
}

std::span<const std::byte> FwCfg::rest() const {
  const auto all = item();
  return all.subspan(std::min<std::size_t>(s_.offset, all.size()));
}

void FwCfg::select(std::uint16_t item) {
  s_.item = item;
  s_.offset = 0;
}

void FwCfg::advance(std::uint64_t bytes) {
  // Past the end there is nothing but zeroes, however far.
  const std::uint64_t end = item().size();
  s_.offset = static_cast<std::uint32_t>(std::min<std::uint64_t>(
      std::uint64_t{s_.offset} + bytes, std::max<std::uint64_t>(end, s_.offset)));
}

void FwCfg::read(const IoAccess& access, std::span<std::byte> data) {
  if (access.offset >= kDma) {
    for (std::size_t i = 0; i < data.size(); ++i) {
      const std::uint64_t at = access.offset - kDma + i;
      if (memory_ != nullptr && at < kDmaSignature.size()) {
        data[i] = kDmaSignature[static_cast<std::size_t>(at)];
      }
    }
    return;
  }
  if (data.size() != 1) return;  // only writes have two bytes
  const auto bytes = rest();
  data[0] = bytes.empty() ? std::byte{0} : bytes.front();
  advance(1);
}

void FwCfg::write(const IoAccess& access, std::span<const std::byte> data) {
  if (access.offset >= kDma) {
    write_dma(access.offset - kDma, data);
  } else if (access.offset == kSelector && data.size() == 2) {
    select(static_cast<std::uint16_t>(load_le(data)));
  }
}

void FwCfg::write_dma(std::uint64_t offset, std::span<const std::byte> data) {
  if (memory_ == nullptr) return;
  if (offset == 0 && data.size() == 8) {
    s_.dma_address = 0;
    run_dma(Gpa(load_be(data)));
  } else if (offset == 0 && data.size() == 4) {
    s_.dma_address = static_cast<std::uint32_t>(load_be(data));
  } else if (offset == 4 && data.size() == 4) {
    const std::uint64_t high = std::exchange(s_.dma_address, 0);
    run_dma(Gpa(high << 32 | load_be(data)));
  }
}

void FwCfg::run_dma(Gpa request) {
  // control, length: 32 bits; address: 64.
  std::array<std::byte, 16> bytes;
  if (!memory_->read(request, bytes)) return;
  const std::span<const std::byte> fields(bytes);
  const auto control = static_cast<std::uint32_t>(load_be(fields.first(4)));
  const auto length = static_cast<std::uint32_t>(load_be(fields.subspan(4, 4)));
  const bool good = transfer(control, length, Gpa(load_be(fields.subspan(8, 8))));
  // All zero says: done.
  std::array<std::byte, 4> result{};
  if (!good) result.back() = std::byte{kError};
  (void)memory_->write(request, result);
}

bool FwCfg::transfer(std::uint32_t control, std::uint32_t length, Gpa to) {
  if ((control & kSelect) != 0) select(static_cast<std::uint16_t>(control >> 16));
  if ((control & kRead) == 0) {
    if ((control & kWrite) != 0) return false;
    if ((control & kSkip) != 0) advance(length);
    return true;
  }
  const auto all = rest();
  const auto bytes = all.first(std::min<std::size_t>(length, all.size()));
  const std::uint64_t padding = length - bytes.size();
  const auto range = GpaRange::create(to, length);
  if (padding > kMostPadding || !range || !memory_->contains(*range)) return false;
  if (!memory_->write(to, bytes)) return false;
  const auto behind = GpaRange::create(Gpa(to.value + bytes.size()), padding);
  if (!behind || !memory_->fill(*behind, std::byte{0})) return false;
  advance(length);
  return true;
}

void FwCfg::reset() { s_ = State{}; }

void FwCfg::save(StateWriter& writer) const { writer.put(s_); }

Result<void> FwCfg::restore(const StateReader& reader) {
  s_ = VMM_TRY(reader.get<State>());
  return {};
}

}  // namespace vmm
