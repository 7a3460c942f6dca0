#include "devices/virtio/pci_transport.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/le.h"
#include "devices/state_io.h"

namespace vmm::virtio {
namespace {

// Fields of the common configuration (4.1.4.3).
enum Common : std::uint64_t {
  kDeviceFeatureSelect = 0x00,
  kDeviceFeature = 0x04,
  kDriverFeatureSelect = 0x08,
  kDriverFeature = 0x0c,
  kConfigVector = 0x10,
  kNumQueues = 0x12,
  kDeviceStatus = 0x14,
  kConfigGeneration = 0x15,
  kQueueSelect = 0x16,
  kQueueSize = 0x18,
  kQueueVector = 0x1a,
  kQueueEnable = 0x1c,
  kQueueNotifyOff = 0x1e,
  kQueueDesc = 0x20,
  kQueueDriver = 0x28,
  kQueueDevice = 0x30,
  kQueueNotifyData = 0x38,
  kQueueReset = 0x3a,
};

// A field and where it starts.
struct Field {
  std::uint64_t start;
  std::size_t width;
};
constexpr std::array<Field, 18> kFields{{
    {kDeviceFeatureSelect, 4},
    {kDeviceFeature, 4},
    {kDriverFeatureSelect, 4},
    {kDriverFeature, 4},
    {kConfigVector, 2},
    {kNumQueues, 2},
    {kDeviceStatus, 1},
    {kConfigGeneration, 1},
    {kQueueSelect, 2},
    {kQueueSize, 2},
    {kQueueVector, 2},
    {kQueueEnable, 2},
    {kQueueNotifyOff, 2},
    {kQueueDesc, 8},
    {kQueueDriver, 8},
    {kQueueDevice, 8},
    {kQueueNotifyData, 2},
    {kQueueReset, 2},
}};

const Field* field_at(std::uint64_t offset) noexcept {
  const auto found = std::find_if(kFields.begin(), kFields.end(), [offset](const Field& field) {
    return offset >= field.start && offset - field.start < field.width;
  });
  return found != kFields.end() ? found : nullptr;
}

// Bits of the ISR status (4.1.4.5).
constexpr std::uint8_t kQueueInterrupt = 1, kConfigInterrupt = 2;

// 4.1.4: a vendor capability, its types, and where fields are in it.
constexpr std::uint8_t kVendorCapability = 0x09;
enum CapabilityType : std::uint8_t {
  kCommonConfig = 1,
  kNotifyConfig = 2,
  kIsrConfig = 3,
  kDeviceSpecific = 4,
  kPciConfig = 5,
};
constexpr std::size_t kCapabilitySize = 16;
constexpr std::size_t kCapBar = 4, kCapOffset = 8, kCapLength = 12, kCapData = 16;

std::vector<std::uint8_t> capability(CapabilityType type, std::uint64_t offset,
                                     std::uint64_t length, std::size_t extra = 0) {
  // Behind the ID and the link.
  std::vector<std::uint8_t> bytes(kCapabilitySize - 2 + extra);
  bytes[0] = static_cast<std::uint8_t>(kCapabilitySize + extra);
  bytes[1] = type;
  const auto raw = std::as_writable_bytes(std::span(bytes));
  store_le(raw.subspan(kCapOffset - 2, 4), offset);
  store_le(raw.subspan(kCapLength - 2, 4), length);
  return bytes;
}

// Classes of devices as the PCI SIG numbers them, as far as drivers and people look at them.
std::uint32_t class_code(DeviceType type) noexcept {
  switch (type) {
    case DeviceType::kNet:
      return 0x02'0000;  // Ethernet
    case DeviceType::kBlock:
    case DeviceType::kFs:
      return 0x01'8000;  // mass storage, other
    case DeviceType::kConsole:
      return 0x07'8000;  // communication, other
    case DeviceType::kEntropy:
    case DeviceType::kBalloon:
    case DeviceType::kVsock:
    case DeviceType::kMem:
    case DeviceType::kPmem:
      break;
  }
  return 0xff'0000;
}

pci::Identity identity(DeviceType type) noexcept {
  const auto device =
      static_cast<std::uint16_t>(PciTransport::kFirstDevice + static_cast<std::uint32_t>(type));
  // 4.1.2.1: revision 1 or later, and a subsystem ID of 0x40 or later.
  return {.vendor = PciTransport::kVendor,
          .device = device,
          .revision = 1,
          .class_code = class_code(type),
          .subsystem_vendor = PciTransport::kVendor,
          .subsystem = device};
}

}  // namespace

PciTransport::PciTransport(std::unique_ptr<virtio::Device> device, Ports ports)
    : ports_(std::move(ports)),
      core_(std::move(device), *ports_.memory, *this, ports_.log),
      endpoint_(identity(core_.device().type()), ports_.pci),
      queue_vectors_(core_.queues(), kNoVector) {
  endpoint_.add_bar(0, pci::BarKind::kMemory32, kBarSize);
  endpoint_.add_msix(1, std::size_t{core_.queues()} + 1);
  add_capabilities();
  endpoint_.add_intx();
  endpoint_.power_on();
}

void PciTransport::add_capabilities() {
  const auto add = [this](CapabilityType type, std::uint64_t offset, std::uint64_t length) {
    endpoint_.add_capability(kVendorCapability, capability(type, offset, length));
  };
  add(kCommonConfig, kCommon, kCommonSize);
  add(kIsrConfig, kIsr, 1);
  if (core_.device().config_size() != 0) {
    add(kDeviceSpecific, kDeviceConfig, core_.device().config_size());
  }
  auto notify = capability(kNotifyConfig, kNotify, kNotifyStride * core_.queues(), 4);
  notify[kCapabilitySize - 2] = kNotifyStride;  // the multiplier
  endpoint_.add_capability(kVendorCapability, notify);
  const auto window = capability(kPciConfig, 0, 0, 4);
  std::vector<std::uint8_t> writable(window.size());
  writable[kCapBar - 2] = 0xff;
  std::fill(writable.begin() + kCapOffset - 2, writable.end(), 0xff);
  window_ = endpoint_.add_capability(kVendorCapability, window, writable);
}

void PciTransport::read(const IoAccess& access, std::span<std::byte> data) {
  if (is_window(access, data.size())) {
    if (const auto where = aim()) {
      std::array<std::byte, 4> bytes{};
      read_registers(where->offset, std::span(bytes).first(where->width));
      const IoAccess at{.offset = pci::Endpoint::kConfig + window_ + kCapData};
      endpoint_.write(at, bytes);
    }
  }
  if (!endpoint_.read(access, data)) read_registers(access.offset, data);
}

void PciTransport::write(const IoAccess& access, std::span<const std::byte> data) {
  if (!endpoint_.write(access, data)) {
    write_registers(access.offset, data);
  } else if (is_window(access, data.size())) {
    if (const auto where = aim()) {
      std::array<std::byte, 4> bytes{};
      const IoAccess at{.offset = pci::Endpoint::kConfig + window_ + kCapData};
      endpoint_.read(at, bytes);
      write_registers(where->offset, std::span(bytes).first(where->width));
    }
  }
}

bool PciTransport::is_window(const IoAccess& access, std::size_t width) const noexcept {
  const std::uint64_t first = pci::Endpoint::kConfig + window_ + kCapData;
  return access.offset < first + 4 && access.offset + width > first;
}

std::optional<PciTransport::Aim> PciTransport::aim() const {
  std::array<std::byte, kCapData> bytes{};
  endpoint_.read({.offset = pci::Endpoint::kConfig + window_}, bytes);
  const auto raw = std::span<const std::byte>(bytes);
  const std::uint64_t offset = load_le(raw.subspan(kCapOffset, 4));
  const std::uint64_t width = load_le(raw.subspan(kCapLength, 4));
  const bool sound = bytes[kCapBar] == std::byte{0} && (width == 1 || width == 2 || width == 4) &&
                     offset % width == 0 && offset < kBarSize;
  if (!sound) return std::nullopt;
  return Aim{offset, static_cast<std::size_t>(width)};
}

void PciTransport::read_registers(std::uint64_t offset, std::span<std::byte> data) {
  std::fill(data.begin(), data.end(), std::byte{0});
  const std::uint64_t at = offset % kRegion;
  switch (offset - at) {
    case kCommon: {
      // Fields next to each other may be read as one.
      for (std::size_t done = 0; done < data.size();) {
        const Field* const field = field_at(at + done);
        if (field == nullptr) break;
        const std::size_t skip = static_cast<std::size_t>(at + done - field->start);
        const std::size_t count = std::min(data.size() - done, field->width - skip);
        store_le(data.subspan(done, count), read_common(field->start) >> (8 * skip));
        done += count;
      }
      break;
    }
    case kIsr:
      if (at != 0) break;
      data[0] = std::byte{std::exchange(isr_, std::uint8_t{0})};
      settle();
      break;
    case kDeviceConfig:
      core_.read_config(at, data);
      break;
    default:
      break;
  }
}

void PciTransport::write_registers(std::uint64_t offset, std::span<const std::byte> data) {
  const std::uint64_t at = offset % kRegion;
  switch (offset - at) {
    case kCommon:
      write_common(at, data.size(), load_le(data));
      break;
    case kDeviceConfig:
      core_.write_config(at, data);
      break;
    case kNotify:
      // Where it was written says which queue; what was written only repeats it.
      if (at % kNotifyStride == 0) core_.notify(static_cast<std::uint32_t>(at / kNotifyStride));
      break;
    default:
      break;
  }
}

std::uint64_t PciTransport::read_common(std::uint64_t offset) {
  const Queue* const queue = core_.selected();
  switch (static_cast<Common>(offset)) {
    case kDeviceFeatureSelect:
      return core_.device_feature_select();
    case kDeviceFeature:
      return core_.device_features();
    case kDriverFeatureSelect:
      return core_.driver_feature_select();
    case kDriverFeature:
      return core_.driver_features();
    case kConfigVector:
      return config_vector_;
    case kNumQueues:
      return core_.queues();
    case kDeviceStatus:
      return core_.status();
    case kConfigGeneration:
      return core_.config_generation() & 0xff;
    case kQueueSelect:
      return core_.queue_select();
    case kQueueSize:
      return core_.queue_size();
    case kQueueVector:
      return queue != nullptr ? queue_vectors_[core_.queue_select()] : kNoVector;
    case kQueueEnable:
      return core_.queue_enabled() ? 1 : 0;
    case kQueueNotifyOff:
      return queue != nullptr ? core_.queue_select() : 0;
    case kQueueDesc:
      return queue != nullptr ? queue->state().descriptors : 0;
    case kQueueDriver:
      return queue != nullptr ? queue->state().driver : 0;
    case kQueueDevice:
      return queue != nullptr ? queue->state().device : 0;
    case kQueueReset:
      return core_.queue_reset_pending() ? 1 : 0;
    case kQueueNotifyData:
      break;
  }
  return 0;
}

// Only whole fields can be written, and either half of an address (4.1.3.1).
void PciTransport::write_common(std::uint64_t offset, std::size_t width, std::uint64_t value) {
  if (offset >= kQueueDesc && offset < kQueueNotifyData) return write_address(offset, width, value);
  const Field* const field = field_at(offset);
  if (field == nullptr || field->start != offset || field->width != width) return;
  const auto word = static_cast<std::uint32_t>(value);
  const auto half = static_cast<std::uint16_t>(value);
  switch (static_cast<Common>(offset)) {
    case kDeviceFeatureSelect:
      return core_.set_device_feature_select(word);
    case kDriverFeatureSelect:
      return core_.set_driver_feature_select(word);
    case kDriverFeature:
      return core_.set_driver_features(word);
    case kConfigVector:
      config_vector_ = vector_or_none(value);
      return;
    case kDeviceStatus:
      return core_.set_status(static_cast<std::uint8_t>(value));
    case kQueueSelect:
      return core_.set_queue_select(half);
    case kQueueSize:
      return core_.set_queue_size(half);
    case kQueueVector:
      if (core_.selected() != nullptr) {
        queue_vectors_[core_.queue_select()] = vector_or_none(value);
      }
      return;
    case kQueueEnable:
      if (value == 1) core_.enable_queue();
      return;
    case kQueueReset:
      if (value == 1 && (core_.negotiated() & kFeatureRingReset) != 0) core_.reset_queue();
      return;
    case kDeviceFeature:
    case kNumQueues:
    case kConfigGeneration:
    case kQueueNotifyOff:
    case kQueueNotifyData:
    case kQueueDesc:
    case kQueueDriver:
    case kQueueDevice:
      return;
  }
}

void PciTransport::write_address(std::uint64_t offset, std::size_t width, std::uint64_t value) {
  const Queue* const queue = core_.selected();
  const bool whole = width == 8 && offset % 8 == 0;
  if (queue == nullptr || !(whole || (width == 4 && offset % 4 == 0))) return;
  const std::uint64_t field = offset - offset % 8;
  const std::uint64_t shift = 8 * (offset % 8);
  const std::uint64_t mask = (whole ? ~std::uint64_t{0} : std::uint64_t{0xffff'ffff}) << shift;
  const QueueState& before = queue->state();
  const auto merged = [&](std::uint64_t old) { return (old & ~mask) | (value << shift & mask); };
  if (field == kQueueDesc) core_.set_queue_descriptors(merged(before.descriptors));
  if (field == kQueueDriver) core_.set_queue_driver(merged(before.driver));
  if (field == kQueueDevice) core_.set_queue_device(merged(before.device));
}

// 4.1.5.1.2: a vector that the device cannot give reads back as none.
std::uint16_t PciTransport::vector_or_none(std::uint64_t vector) const noexcept {
  return vector < endpoint_.vectors() ? static_cast<std::uint16_t>(vector) : kNoVector;
}

void PciTransport::raise_queue_interrupt(std::uint16_t queue) {
  if (endpoint_.msix_enabled()) {
    endpoint_.interrupt(queue_vectors_[queue]);
  } else {
    isr_ = static_cast<std::uint8_t>(isr_ | kQueueInterrupt);
    settle();
  }
}

// The bit is set with MSI-X, too (4.1.4.5.1).
void PciTransport::raise_config_interrupt() {
  isr_ = static_cast<std::uint8_t>(isr_ | kConfigInterrupt);
  settle();
  endpoint_.interrupt(config_vector_);
}

void PciTransport::ring(std::uint16_t queue) {
  if (ports_.ring) ports_.ring(queue);
}

void PciTransport::on_active(bool active) {
  if (ports_.on_active) ports_.on_active(active);
}

void PciTransport::on_reset() {
  isr_ = 0;
  config_vector_ = kNoVector;
  std::fill(queue_vectors_.begin(), queue_vectors_.end(), kNoVector);
  settle();
}

void PciTransport::reset() {
  core_.reset();
  on_reset();
  endpoint_.reset();
}

PciTransport::State PciTransport::state() const {
  return {endpoint_.state(), core_.state(), isr_, config_vector_, queue_vectors_};
}

void PciTransport::set_interrupts(const State& state) {
  isr_ = state.isr;
  config_vector_ = state.config_vector;
  queue_vectors_ = state.queue_vectors;
  endpoint_.set_state(state.endpoint);
  settle();
}

void PciTransport::save(StateWriter& writer) const {
  writer.put(state());
  StateWriter device;
  core_.device().save(device);
  writer.put_part("device", device);
}

Result<void> PciTransport::restore(const StateReader& reader) {
  const State state = VMM_TRY(reader.get<State>());
  const StateReader device = VMM_TRY(reader.part("device"));
  VMM_TRY(endpoint_.check(state.endpoint));
  const auto exists = [this](std::uint16_t vector) {
    return vector == kNoVector || vector < endpoint_.vectors();
  };
  if ((state.isr & ~(kQueueInterrupt | kConfigInterrupt)) != 0 || !exists(state.config_vector) ||
      state.queue_vectors.size() != queue_vectors_.size() ||
      !std::all_of(state.queue_vectors.begin(), state.queue_vectors.end(), exists)) {
    return fail(ErrorCode::kBadState, "'{}' was saved with interrupts that it does not have", id());
  }
  // Before the device, which may have something to say as soon as it is back.
  const State before = this->state();
  set_interrupts(state);
  auto restored = core_.restore(state.core, device);
  if (!restored) set_interrupts(before);
  return restored;
}

}  // namespace vmm::virtio
