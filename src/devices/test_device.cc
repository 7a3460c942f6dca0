#include "devices/test_device.h"

#include <algorithm>
#include <utility>

#include "base/le.h"
#include "devices/debug_console.h"
#include "devices/state_io.h"

namespace vmm {
namespace {

constexpr std::uint32_t kLineMask = (1U << TestDevice::kLines) - 1;

bool is_latch(std::uint64_t offset) {
  return offset < TestDevice::kFlush ||
         (offset >= TestDevice::kSecondLatch &&
          offset < TestDevice::kSecondLatch + TestDevice::kLatchSize);
}

// The bits of the latch that an access of `width` bytes at `offset` reaches; what would lie past
// its end is cut off.
struct LatchBits {
  unsigned shift;
  std::uint32_t mask;
};
LatchBits latch_bits(std::uint64_t offset, std::size_t width) {
  const auto shift = static_cast<unsigned>(offset % 4 * 8);
  const std::uint32_t low = width >= 4 ? ~0U : (1U << (8 * width)) - 1;
  return {shift, low << shift};
}

}  // namespace

Result<void> TestDevice::State::validate() const {
  if ((lines & ~kLineMask) != 0) {
    return fail(ErrorCode::kBadState, "The test device has {} interrupt lines", kLines);
  }
  if (memory.size() > kMemorySize) {
    return fail(ErrorCode::kBadState, "The test device's memory has {} bytes, not {}", kMemorySize,
                memory.size());
  }
  return {};
}

TestDevice::TestDevice(std::string id, Ports ports)
    : ports_(std::move(ports)), id_(std::move(id)) {}

bool TestDevice::is_console(std::uint64_t offset, std::size_t width) const {
  constexpr std::uint64_t kConsole = kSecondLatch + (DebugConsole::kPort - kSecondLatchPort);
  return ports_.console != nullptr && offset == kConsole && width == DebugConsole::kSize;
}

void TestDevice::read(const IoAccess& access, std::span<std::byte> data) {
  if (is_console(access.offset, data.size())) {
    data[0] = DebugConsole::kPresent;
  } else if (is_latch(access.offset)) {
    const LatchBits bits = latch_bits(access.offset, data.size());
    store_le(data, (s_.latch & bits.mask) >> bits.shift);
  } else if (access.offset >= kMemoryBase) {
    const std::uint64_t from = access.offset - kMemoryBase;
    for (std::size_t i = 0; i < data.size(); ++i) {
      const bool there = from + i < s_.memory.size();
      data[i] = std::byte{there ? s_.memory[static_cast<std::size_t>(from + i)] : std::uint8_t{0}};
    }
  }
}

void TestDevice::write(const IoAccess& access, std::span<const std::byte> data) {
  const std::uint64_t value = load_le(data);
  if (is_console(access.offset, data.size())) {
    ports_.console->write(data);
  } else if (is_latch(access.offset)) {
    const LatchBits bits = latch_bits(access.offset, data.size());
    const auto shifted = static_cast<std::uint32_t>(value) << bits.shift;
    s_.latch = (s_.latch & ~bits.mask) | (shifted & bits.mask);
  } else if (access.offset >= kMemoryBase) {
    const std::uint64_t from = access.offset - kMemoryBase;
    const std::uint64_t end = std::min(from + data.size(), kMemorySize);
    if (s_.memory.size() < end) s_.memory.resize(static_cast<std::size_t>(end));
    for (std::uint64_t i = from; i < end; ++i) {
      s_.memory[static_cast<std::size_t>(i)] =
          std::to_integer<std::uint8_t>(data[static_cast<std::size_t>(i - from)]);
    }
  } else if (access.offset >= kLineBase && access.offset < kLineBase + kLines) {
    const std::uint32_t line = 1U << (access.offset - kLineBase);
    s_.lines = value != 0 ? s_.lines | line : s_.lines & ~line;
  } else if (access.offset == kFlush && ports_.remap_page) {
    ports_.remap_page(Gpa(value));
  }
  settle();
}

void TestDevice::settle() {
  for (std::size_t i = 0; i < kLines; ++i) ports_.lines[i].set_level((s_.lines >> i & 1) != 0);
}

void TestDevice::reset() {
  s_ = State{};
  settle();
}

void TestDevice::save(StateWriter& writer) const { writer.put(s_); }

Result<void> TestDevice::restore(const StateReader& reader) {
  s_ = VMM_TRY(reader.get<State>());
  settle();
  return {};
}

}  // namespace vmm
