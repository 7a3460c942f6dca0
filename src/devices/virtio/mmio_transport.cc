#include "devices/virtio/mmio_transport.h"

#include <utility>

#include "base/le.h"
#include "devices/state_io.h"

namespace vmm::virtio {
namespace {

// Section 4.2.2.
constexpr std::uint64_t kMagicValue = 0x000, kVersion = 0x004, kDeviceId = 0x008, kVendorId = 0x00c;
constexpr std::uint64_t kDeviceFeatures = 0x010, kDeviceFeaturesSel = 0x014;
constexpr std::uint64_t kDriverFeatures = 0x020, kDriverFeaturesSel = 0x024;
constexpr std::uint64_t kQueueSel = 0x030, kQueueSizeMax = 0x034, kQueueSize = 0x038;
constexpr std::uint64_t kQueueReady = 0x044;
constexpr std::uint64_t kInterruptStatus = 0x060, kInterruptAck = 0x064, kStatus = 0x070;
constexpr std::uint64_t kQueueDescLow = 0x080, kQueueDescHigh = 0x084;
constexpr std::uint64_t kQueueDriverLow = 0x090, kQueueDriverHigh = 0x094;
constexpr std::uint64_t kQueueDeviceLow = 0x0a0, kQueueDeviceHigh = 0x0a4;
constexpr std::uint64_t kShmLenLow = 0x0b0, kShmBaseHigh = 0x0bc;
constexpr std::uint64_t kQueueReset = 0x0c0, kConfigGeneration = 0x0fc;

constexpr std::uint32_t kMagic = 0x7472'6976;   // "virt"
constexpr std::uint32_t kVendor = 0x204d'4d56;  // "VMM "

// Bits of InterruptStatus.
constexpr std::uint32_t kUsedBuffer = 1, kConfigChange = 2;

std::uint64_t with_low(std::uint64_t address, std::uint32_t low) {
  return (address & ~std::uint64_t{0xffff'ffff}) | low;
}
std::uint64_t with_high(std::uint64_t address, std::uint32_t high) {
  return (address & 0xffff'ffff) | std::uint64_t{high} << 32;
}

}  // namespace

Result<void> MmioTransport::State::validate() const {
  if ((interrupt_status & ~(kUsedBuffer | kConfigChange)) != 0) {
    return fail(ErrorCode::kBadState, "A virtio device holds interrupts that do not exist");
  }
  return {};
}

MmioTransport::MmioTransport(std::unique_ptr<virtio::Device> device, Ports ports)
    : ports_(std::move(ports)), core_(std::move(device), *ports_.memory, *this, ports_.log) {}

void MmioTransport::read(const IoAccess& access, std::span<std::byte> data) {
  if (access.offset >= kConfig) {
    core_.read_config(access.offset - kConfig, data);
  } else {
    store_le(data, read_register(access.offset));
  }
}

void MmioTransport::write(const IoAccess& access, std::span<const std::byte> data) {
  if (access.offset >= kConfig) {
    core_.write_config(access.offset - kConfig, data);
  } else {
    write_register(access.offset, static_cast<std::uint32_t>(load_le(data)));
  }
}

std::uint32_t MmioTransport::read_register(std::uint64_t offset) const {
  switch (offset) {
    case kMagicValue:
      return kMagic;
    case kVersion:
      return 2;
    case kDeviceId:
      return static_cast<std::uint32_t>(core_.device().type());
    case kVendorId:
      return kVendor;
    case kDeviceFeatures:
      return core_.device_features();
    case kQueueSizeMax: {
      const Queue* const queue = core_.selected();
      return queue != nullptr ? queue->max_size() : 0;
    }
    case kQueueSize:
      return core_.queue_size();
    case kQueueReady:
      return core_.queue_enabled() ? 1 : 0;
    case kInterruptStatus:
      return interrupt_status_;
    case kStatus:
      return core_.status();
    case kQueueReset:
      return core_.queue_reset_pending() ? 1 : 0;
    case kConfigGeneration:
      return core_.config_generation();
    default:
      // A region of shared memory that does not exist has the length -1 (section 4.2.2).
      return offset >= kShmLenLow && offset <= kShmBaseHigh && offset % 4 == 0 ? ~0U : 0;
  }
}

void MmioTransport::write_register(std::uint64_t offset, std::uint32_t value) {
  switch (offset) {
    case kDeviceFeaturesSel:
      core_.set_device_feature_select(value);
      return;
    case kDriverFeatures:
      core_.set_driver_features(value);
      return;
    case kDriverFeaturesSel:
      core_.set_driver_feature_select(value);
      return;
    case kQueueNotify:
      core_.notify(value);
      return;
    case kInterruptAck:
      interrupt_status_ &= ~value;
      settle();
      return;
    case kStatus:
      if (value <= 0xff) core_.set_status(static_cast<std::uint8_t>(value));
      return;
    default:
      write_queue_register(offset, value);
  }
}

void MmioTransport::write_queue_register(std::uint64_t offset, std::uint32_t value) {
  if (offset == kQueueSel) {
    // A number of more than 16 bits is that of no queue.
    core_.set_queue_select(static_cast<std::uint16_t>(value < 0xffff ? value : 0xffff));
    return;
  }
  const Queue* const queue = core_.selected();
  if (queue == nullptr) return;
  const QueueState& state = queue->state();
  switch (offset) {
    case kQueueSize:
      core_.set_queue_size(static_cast<std::uint16_t>(value <= kMaxQueueSize ? value : 0));
      return;
    case kQueueReady:
      if (value == 1) core_.enable_queue();
      if (value == 0) core_.reset_queue();
      return;
    case kQueueReset:
      if (value == 1 && (core_.negotiated() & kFeatureRingReset) != 0) core_.reset_queue();
      return;
    case kQueueDescLow:
      core_.set_queue_descriptors(with_low(state.descriptors, value));
      return;
    case kQueueDescHigh:
      core_.set_queue_descriptors(with_high(state.descriptors, value));
      return;
    case kQueueDriverLow:
      core_.set_queue_driver(with_low(state.driver, value));
      return;
    case kQueueDriverHigh:
      core_.set_queue_driver(with_high(state.driver, value));
      return;
    case kQueueDeviceLow:
      core_.set_queue_device(with_low(state.device, value));
      return;
    case kQueueDeviceHigh:
      core_.set_queue_device(with_high(state.device, value));
      return;
    default:
      return;
  }
}

void MmioTransport::raise_queue_interrupt(std::uint16_t) {
  interrupt_status_ |= kUsedBuffer;
  settle();
}

void MmioTransport::raise_config_interrupt() {
  interrupt_status_ |= kConfigChange;
  settle();
}

void MmioTransport::ring(std::uint16_t queue) {
  if (ports_.ring) ports_.ring(queue);
}

void MmioTransport::on_active(bool active) {
  if (ports_.on_active) ports_.on_active(active);
}

void MmioTransport::on_reset() {
  interrupt_status_ = 0;
  settle();
}

void MmioTransport::reset() {
  core_.reset();
  interrupt_status_ = 0;
  settle();
}

void MmioTransport::save(StateWriter& writer) const {
  State state;
  state.core = core_.state();
  state.interrupt_status = interrupt_status_;
  writer.put(state);
  StateWriter device;
  core_.device().save(device);
  writer.put_part("device", device);
}

Result<void> MmioTransport::restore(const StateReader& reader) {
  const State state = VMM_TRY(reader.get<State>());
  const StateReader device = VMM_TRY(reader.part("device"));
  // Before the device, which may have something to say as soon as it is back.
  const std::uint32_t before = std::exchange(interrupt_status_, state.interrupt_status);
  auto restored = core_.restore(state.core, device);
  if (!restored) interrupt_status_ = before;
  settle();
  return restored;
}

}  // namespace vmm::virtio
