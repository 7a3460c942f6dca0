#include "devices/pci/pci_function_device.h"

#include <algorithm>
#include <bit>
#include <bitset>
#include <utility>

#include "base/le.h"
#include "devices/state_io.h"

namespace vmm {
namespace {

using pci::BarKind;
using pci::ConfigSpace;
using pci::Endpoint;
using pci::Msix;
using TakenBars = std::bitset<ConfigSpace::kBars>;

Result<void> check_bar(const PciFunctionDevice::Bar& bar, TakenBars& taken) {
  const std::size_t last = bar.index + (bar.kind == BarKind::kMemory64 ? 1 : 0);
  if (bar.kind == BarKind::kIo) {
    return fail(ErrorCode::kBadConfig, "BAR {} cannot be of ports: choose memory", bar.index);
  }
  if (!std::has_single_bit(bar.size) || bar.size < Endpoint::kSmallestBar ||
      bar.size > PciFunctionDevice::kLargestBar) {
    return fail(ErrorCode::kBadConfig,
                "BAR {} cannot have {} bytes: choose a power of two from {} to {}", bar.index,
                bar.size, Endpoint::kSmallestBar, PciFunctionDevice::kLargestBar);
  }
  if (bar.index >= taken.size() || last >= taken.size()) {
    return fail(ErrorCode::kBadConfig, "There is no BAR {}: choose 0 to {}", last,
                taken.size() - 1);
  }
  for (std::size_t i = bar.index; i <= last; ++i) {
    if (taken[i]) return fail(ErrorCode::kBadConfig, "BAR {} is there twice", i);
    taken.set(i);
  }
  return {};
}

std::size_t first_free(const TakenBars& taken) {
  std::size_t bar = 0;
  while (bar < taken.size() && taken[bar]) ++bar;
  return bar;
}

TakenBars taken_bars(const std::vector<PciFunctionDevice::Bar>& bars) {
  TakenBars taken;
  for (const auto& bar : bars) {
    taken.set(bar.index);
    if (bar.kind == BarKind::kMemory64) taken.set(bar.index + 1);
  }
  return taken;
}

// Each begins at a multiple of four bytes.
Result<void> check_capabilities(const PciFunctionDevice::Options& options) {
  constexpr std::size_t kMsixBytes = 12;
  std::size_t bytes = options.vectors != 0 ? kMsixBytes : 0;
  for (const auto& capability : options.capabilities) {
    const std::size_t whole = capability.bytes.size() + 2;
    if (capability.writable.size() > capability.bytes.size() || whole > ConfigSpace::kSize) {
      return fail(ErrorCode::kBadConfig, "A capability has {} bytes, {} of them writable",
                  capability.bytes.size(), capability.writable.size());
    }
    bytes += (whole + 3) / 4 * 4;
  }
  const std::size_t room = ConfigSpace::kSize - pci::kHeaderEnd;
  if (bytes <= room) return {};
  return fail(ErrorCode::kBadConfig, "Capabilities of {} bytes are too large: there is room for {}",
              bytes, room);
}

Result<void> check(const PciFunctionDevice::Options& options) {
  TakenBars taken;
  for (const auto& bar : options.bars) VMM_TRY(check_bar(bar, taken));
  if (options.vectors > Msix::kMostVectors) {
    return fail(ErrorCode::kBadConfig, "{} MSI-X vectors are not possible: choose at most {}",
                options.vectors, Msix::kMostVectors);
  }
  if (options.vectors != 0 && taken.all()) {
    return fail(ErrorCode::kBadConfig, "No BAR is left for MSI-X");
  }
  return check_capabilities(options);
}

}  // namespace

Result<std::unique_ptr<PciFunctionDevice>> PciFunctionDevice::create(
    std::string id, Options options, const pci::Endpoint::Ports& ports) {
  VMM_TRY(with_context(check(options), "Make the PCI function '" + id + "'"));
  return std::unique_ptr<PciFunctionDevice>(
      new PciFunctionDevice(std::move(id), std::move(options), ports));
}

PciFunctionDevice::PciFunctionDevice(std::string id, Options options,
                                     const pci::Endpoint::Ports& ports)
    : id_(std::move(id)), options_(std::move(options)), endpoint_(options_.identity, ports) {
  for (const Bar& bar : options_.bars) {
    endpoint_.add_bar(bar.index, bar.kind, bar.size, bar.widths);
  }
  if (options_.vectors != 0) {
    endpoint_.add_msix(first_free(taken_bars(options_.bars)), options_.vectors);
  }
  for (const Capability& capability : options_.capabilities) {
    endpoint_.add_capability(capability.id, capability.bytes, capability.writable);
  }
  if (options_.intx) endpoint_.add_intx();
  endpoint_.power_on();
}

void PciFunctionDevice::set_intx(bool level) {
  intx_ = level && options_.intx;
  endpoint_.set_intx(intx_);
}

const PciFunctionDevice::Bar* PciFunctionDevice::bar_at(const IoAccess& access,
                                                        IoAccess& inside) const noexcept {
  const std::uint64_t index = access.offset / Endpoint::bar_offset(1);
  const auto found = std::find_if(options_.bars.begin(), options_.bars.end(),
                                  [index](const Bar& bar) { return bar.index == index; });
  if (found == options_.bars.end()) return nullptr;
  inside = access;
  inside.offset = access.offset - Endpoint::bar_offset(found->index);
  return &*found;
}

void PciFunctionDevice::read(const IoAccess& access, std::span<std::byte> data) {
  if (endpoint_.read(access, data)) return;
  IoAccess inside;
  const Bar* const bar = bar_at(access, inside);
  if (bar != nullptr && bar->read) store_le(data, bar->read(*this, inside, data.size()));
}

void PciFunctionDevice::write(const IoAccess& access, std::span<const std::byte> data) {
  if (endpoint_.write(access, data)) return;
  IoAccess inside;
  const Bar* const bar = bar_at(access, inside);
  if (bar != nullptr && bar->write) bar->write(*this, inside, data.size(), load_le(data));
}

void PciFunctionDevice::reset() {
  endpoint_.reset();
  set_intx(false);
  if (options_.reset) options_.reset();
}

void PciFunctionDevice::save(StateWriter& writer) const {
  writer.put(State{endpoint_.state(), intx_, {options_.state.take()}});
}

Result<void> PciFunctionDevice::restore(const StateReader& reader) {
  const State state = VMM_TRY(reader.get<State>());
  VMM_TRY(endpoint_.check(state.endpoint));
  if (state.intx && !options_.intx) {
    return fail(ErrorCode::kBadState, "'{}' was saved with an interrupt that it does not have",
                id_);
  }
  VMM_TRY(with_context(options_.state.give(state.bytes.bytes), "Restore '" + id_ + "'"));
  endpoint_.set_state(state.endpoint);
  set_intx(state.intx);
  return {};
}

}  // namespace vmm
