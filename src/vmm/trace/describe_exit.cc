#include "vmm/trace/describe_exit.h"

#include <algorithm>

#include "base/le.h"

namespace vmm {
namespace {

struct Describe {
  ExitRecord& record;

  void operator()(const PioExit& exit) const noexcept {
    record.address = exit.port;
    record.width = exit.width;
    record.is_write = exit.is_write;
    if (exit.is_write) record.value = load_le(first_item(exit));
  }
  void operator()(const MmioExit& exit) const noexcept {
    record.address = exit.address.value;
    record.width = static_cast<std::uint8_t>(exit.data.size());
    record.is_write = exit.is_write;
    if (exit.is_write) record.value = load_le(exit.data);
  }
  void operator()(const MsrExit& exit) const noexcept {
    record.address = exit.index;
    record.width = 8;
    record.is_write = exit.is_write;
    record.value = exit.value;
  }
  void operator()(const DebugTrapExit& exit) const noexcept {
    record.address = exit.pc;
    record.value = exit.dr6;
  }
  void operator()(const EmulationFailureExit& exit) const noexcept {
    const auto bytes = std::as_bytes(std::span(exit.bytes));
    record.value = load_le(bytes.first(std::min<std::size_t>(8, exit.size)));
  }
  void operator()(const InternalErrorExit& exit) const noexcept { record.value = exit.suberror; }
  void operator()(const FailEntryExit& exit) const noexcept { record.value = exit.hardware_reason; }
  void operator()(const SystemEventExit& exit) const noexcept { record.value = exit.type; }
  void operator()(const IoapicEoiExit& exit) const noexcept { record.value = exit.vector; }
  void operator()(const UnknownExit& exit) const noexcept { record.value = exit.reason; }
  void operator()(const HltExit&) const noexcept {}
  void operator()(const ShutdownExit&) const noexcept {}
  void operator()(const IrqWindowExit&) const noexcept {}
  void operator()(const TprExit&) const noexcept {}
  void operator()(const InterruptedExit&) const noexcept {}
  void operator()(const MemoryFaultExit&) const noexcept {}

  static std::span<const std::byte> first_item(const PioExit& exit) noexcept {
    return exit.data.first(std::min<std::size_t>(exit.width, exit.data.size()));
  }
};

}  // namespace

[[gnu::hot]] ExitRecord describe_exit(const VcpuExit& exit, std::uint64_t rip) noexcept {
  ExitRecord record;
  record.kind = static_cast<std::uint8_t>(exit.index());
  record.rip = rip;
  const Describe describe{record};
  // The two that make a guest slow do without the table of functions behind visit().
  if (const auto* const pio = std::get_if<PioExit>(&exit)) {
    describe(*pio);
  } else if (const auto* const mmio = std::get_if<MmioExit>(&exit)) {
    describe(*mmio);
  } else {
    std::visit(describe, exit);
  }
  return record;
}

[[gnu::hot]] std::optional<std::uint64_t> value_read(const VcpuExit& exit) noexcept {
  if (const auto* const pio = std::get_if<PioExit>(&exit)) {
    if (!pio->is_write) return load_le(Describe::first_item(*pio));
  } else if (const auto* const mmio = std::get_if<MmioExit>(&exit)) {
    if (!mmio->is_write) return load_le(mmio->data);
  }
  return std::nullopt;
}

}  // namespace vmm
