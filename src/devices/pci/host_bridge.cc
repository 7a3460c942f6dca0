#include "devices/pci/host_bridge.h"

#include <utility>

#include "base/le.h"
#include "devices/state_io.h"

namespace vmm::pci {
namespace {

constexpr std::uint32_t kEnable = 1U << 31;
constexpr std::uint32_t kReserved = 0x7f00'0003;  // reads as zero
constexpr std::uint32_t kBus = 0x00ff'0000;
constexpr std::uint32_t kHostBridgeClass = 0x06'0000;
constexpr std::uint64_t kMappedSize = 4096;  // of one function

}  // namespace

HostBridge::Self::Self()
    : space(Identity{.vendor = kVendor, .device = kDevice, .class_code = kHostBridgeClass}) {}

void HostBridge::Self::read_config(std::uint64_t offset, std::span<std::byte> data) {
  space.read(offset, data);
}

void HostBridge::Self::write_config(std::uint64_t offset, std::span<const std::byte> data) {
  space.write(offset, data);
}

HostBridge::HostBridge(std::string id, MachineEvents* events)
    : reset_control_(id + ".reset_control", events), id_(std::move(id)) {
  functions_[0] = &self_;
}

Result<void> HostBridge::attach(Slot slot, Function& function) {
  const std::size_t index = std::size_t{slot.device} * 8 + slot.function;
  if (slot.device > 31 || slot.function > 7) {
    return fail(ErrorCode::kBadConfig, "There is no PCI slot {:02x}.{:x}", slot.device,
                slot.function);
  }
  if (functions_[index] != nullptr) {
    return fail(ErrorCode::kBadConfig, "PCI slot {:02x}.{:x} is taken", slot.device, slot.function);
  }
  functions_[index] = &function;
  return {};
}

void HostBridge::detach(Slot slot) {
  const std::size_t index = std::size_t{slot.device} * 8 + slot.function;
  if (index != 0 && index < kFunctions) functions_[index] = nullptr;
}

bool HostBridge::is_reset_control(const IoAccess& access, std::size_t width) const {
  return access.offset == kReset && width == 1;
}

HostBridge::Target HostBridge::target(const IoAccess& access, std::size_t width) const {
  std::uint64_t index = 0;
  std::uint64_t offset = 0;
  if (access.offset >= kMemory) {
    const std::uint64_t at = access.offset - kMemory;
    index = at / kMappedSize;
    offset = at % kMappedSize;
  } else {
    if (access.offset < kData || (address_ & kEnable) == 0 || (address_ & kBus) != 0) return {};
    index = (address_ >> 8) & 0xff;
    offset = (address_ & 0xfc) + (access.offset - kData);
  }
  // An access across two registers is none of either's.
  if (index >= kFunctions || offset % 4 + width > 4) return {};
  return {functions_[static_cast<std::size_t>(index)], offset};
}

void HostBridge::read(const IoAccess& access, std::span<std::byte> data) {
  if (is_reset_control(access, data.size())) {
    reset_control_.read({.offset = 0, .address = access.address, .vcpu = access.vcpu}, data);
  } else if (access.offset == kAddress && data.size() == 4) {
    store_le(data, address_);
  } else if (const Target at = target(access, data.size()); at.function != nullptr) {
    at.function->read_config(at.offset, data);
  }
}

void HostBridge::write(const IoAccess& access, std::span<const std::byte> data) {
  if (is_reset_control(access, data.size())) {
    reset_control_.write({.offset = 0, .address = access.address, .vcpu = access.vcpu}, data);
  } else if (access.offset == kAddress && data.size() == 4) {
    address_ = static_cast<std::uint32_t>(load_le(data)) & ~kReserved;
  } else if (const Target at = target(access, data.size()); at.function != nullptr) {
    at.function->write_config(at.offset, data);
  }
}

HostBridge::State HostBridge::state() const {
  return {address_, self_.space.bytes(), reset_control_.state()};
}

void HostBridge::reset() {
  address_ = 0;
  self_.space.reset();
  reset_control_.reset();
}

void HostBridge::save(StateWriter& writer) const { writer.put(state()); }

Result<void> HostBridge::restore(const StateReader& reader) {
  const State state = VMM_TRY(reader.get<State>());
  if ((state.address & kReserved) != 0) {
    return fail(ErrorCode::kBadState, "CONFIG_ADDRESS holds bits that do not exist");
  }
  VMM_TRY(self_.space.check(state.config));
  address_ = state.address;
  self_.space.set_bytes(state.config);
  reset_control_.set_state(state.reset_control);
  return {};
}

}  // namespace vmm::pci
