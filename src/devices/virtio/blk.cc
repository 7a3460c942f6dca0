#include "devices/virtio/blk.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/checked.h"
#include "base/le.h"
#include "devices/state_io.h"

namespace vmm::virtio {
namespace {

// Section 5.2.3.
constexpr std::uint64_t kSizeMax = 1ULL << 1;
constexpr std::uint64_t kSegMax = 1ULL << 2;
constexpr std::uint64_t kReadOnly = 1ULL << 5;
constexpr std::uint64_t kBlkSize = 1ULL << 6;
constexpr std::uint64_t kFlush = 1ULL << 9;
constexpr std::uint64_t kTopology = 1ULL << 10;
constexpr std::uint64_t kConfigWce = 1ULL << 11;
constexpr std::uint64_t kMultiQueue = 1ULL << 12;
constexpr std::uint64_t kDiscard = 1ULL << 13;
constexpr std::uint64_t kWriteZeroes = 1ULL << 14;

// Section 5.2.6: request types.
constexpr std::uint32_t kTypeIn = 0;
constexpr std::uint32_t kTypeOut = 1;
constexpr std::uint32_t kTypeFlush = 4;
constexpr std::uint32_t kTypeGetId = 8;
constexpr std::uint32_t kTypeDiscard = 11;
constexpr std::uint32_t kTypeWriteZeroes = 13;

constexpr std::uint32_t kFlagUnmap = 1;

constexpr std::uint64_t kSector = BlockBackend::kSectorSize;

// Section 5.2.4.
struct Config {
  Le64 capacity;
  Le32 size_max;
  Le32 seg_max;
  std::array<std::uint8_t, 4> geometry{};
  Le32 blk_size;
  std::uint8_t physical_block_exp = 0;
  std::uint8_t alignment_offset = 0;
  Le16 min_io_size;
  Le32 opt_io_size;
  std::uint8_t writeback = 0;
  std::uint8_t unused0 = 0;
  Le16 num_queues;
  Le32 max_discard_sectors;
  Le32 max_discard_seg;
  Le32 discard_sector_alignment;
  Le32 max_write_zeroes_sectors;
  Le32 max_write_zeroes_seg;
  std::uint8_t write_zeroes_may_unmap = 0;
  std::array<std::uint8_t, 3> unused1{};
};
static_assert(sizeof(Config) == 60);
constexpr std::uint32_t kWritebackOffset = 32;
constexpr std::uint64_t kCacheFlushTag = ~std::uint64_t{0};  // those of requests are small
static_assert(offsetof(Config, writeback) == kWritebackOffset);

// Section 5.2.6: virtio_blk_discard_write_zeroes.
struct Range {
  Le64 sector;
  Le32 sectors;
  Le32 flags;
};
static_assert(sizeof(Range) == 16);

std::uint64_t features_for(const BlockLimits& limits, std::uint16_t queues) {
  std::uint64_t features = kSizeMax | kSegMax | kBlkSize | kTopology | kFlush | kConfigWce;
  if (queues > 1) features |= kMultiQueue;
  if (limits.read_only) return features | kReadOnly;
  return features | kWriteZeroes | (limits.discard ? kDiscard : 0);
}

}  // namespace

struct Blk::Header {
  Le32 type;
  Le32 reserved;
  Le64 sector;
};

struct Blk::Slot {
  InFlight request;
  HostView memory;             // in use by the host
  std::uint64_t written = 0;   // of the answer, status included, when it goes well
  bool flush_follows = false;  // writethrough: the request is done when its data is durable
  bool busy = false;           // not in idle_
  bool orphaned = false;       // nobody waits for the answer
  std::size_t index = 0;
};

Blk::Blk(std::string id, Options options)
    : id_(std::move(id)),
      backend_(std::move(options.backend)),
      serial_(options.serial.substr(0, kSerialSize)),
      queue_sizes_(std::clamp<std::size_t>(options.queues, 1, kMostQueues), kQueueSize),
      offered_(features_for(backend_->limits(), options.queues)),
      told_size_(backend_->limits().size),
      used_(queue_sizes_.size()) {}

Blk::~Blk() {
  if (backend_ == nullptr) return;
  orphan(nullptr);
  backend_->drain();
}

std::uint32_t Blk::config_size() const noexcept { return sizeof(Config); }

void Blk::read_config(std::uint32_t offset, std::span<std::byte> data) const {
  const BlockLimits limits = backend_->limits();
  Config config;
  config.capacity = told_size_ / kSector;
  config.size_max = kSegmentSize;
  config.seg_max = kMostSegments;
  config.blk_size = limits.block_size;
  const std::uint32_t ratio = std::max(limits.physical_block / limits.block_size, 1U);
  config.physical_block_exp = static_cast<std::uint8_t>(std::countr_zero(ratio));
  config.min_io_size = static_cast<std::uint16_t>(std::min(ratio, 0xffffU));
  config.writeback = writeback_ ? 1 : 0;
  config.num_queues = static_cast<std::uint16_t>(queue_sizes_.size());
  if ((offered_ & kDiscard) != 0) {
    config.max_discard_sectors = kMostDiscardSectors;
    config.max_discard_seg = 1;
    config.discard_sector_alignment = limits.physical_block / static_cast<std::uint32_t>(kSector);
  }
  if ((offered_ & kWriteZeroes) != 0) {
    config.max_write_zeroes_sectors = kMostZeroSectors;
    config.max_write_zeroes_seg = 1;
    config.write_zeroes_may_unmap = limits.discard ? 1 : 0;
  }
  std::memcpy(data.data(), std::as_bytes(std::span(&config, 1)).data() + offset, data.size());
}

// Section 5.2.5.2: only `writeback` is the driver's.
void Blk::write_config(std::uint32_t offset, std::span<const std::byte> data) {
  if (offset != kWritebackOffset || data.size() != 1 || (features_ & kConfigWce) == 0) return;
  const bool wanted = data[0] != std::byte{0};
  // From now on the driver does not flush: what it wrote before becomes durable without it.
  if (writeback_ && !wanted) {
    flush_cache();
    backend_->commit();
  }
  writeback_ = wanted;
}

// One at a time: a driver can turn its cache off faster than a host writes it out.
void Blk::flush_cache() {
  const bool under_way = cache_flush_ != CacheFlush::kNone;
  cache_flush_ = under_way ? CacheFlush::kAgain : CacheFlush::kUnderWay;
  if (under_way) return;
  backend_->submit({.op = BlockOp::kFlush, .client = this, .tag = kCacheFlushTag});
}

// Section 5.2.5.2: without FLUSH a driver cannot make anything durable, so each write has to be.
bool Blk::writeback() const noexcept {
  return (features_ & kFlush) != 0 && ((features_ & kConfigWce) == 0 || writeback_);
}

void Blk::activate(std::uint64_t features) { features_ = features; }

bool Blk::process(std::uint16_t queue) {
  // Much ends within the call that starts it, such as reads from the page cache: then the way
  // through the event loop is saved.
  if (!polled_) backend_->set_quiet(true);
  std::uint32_t begun = 0;
  const bool more = drain(queue, chain_, [&](Chain& chain) {
    start(queue, chain);
    if (++begun % kAtOnce != 0) return;
    commit();
    host().queue(queue).publish_used();
  });
  commit();
  if (!polled_) backend_->set_quiet(false);
  tell_driver();
  return more;
}

void Blk::commit() {
  backend_->commit();
  if (backend_->ready()) take_ended();
}

bool Blk::poll() {
  if (!backend_->ready()) return false;
  completed();
  return true;
}

void Blk::set_polled(bool polled) {
  if (std::exchange(polled_, polled) != polled) backend_->set_quiet(polled);
}

void Blk::start(std::uint16_t queue, Chain& chain) {
  if (idle_.empty()) {
    slots_.push_back(std::make_unique<Slot>());
    slots_.back()->index = slots_.size() - 1;
    idle_.push_back(slots_.back().get());
  }
  Slot& slot = *idle_.back();
  idle_.pop_back();
  slot.busy = true;
  std::swap(slot.request.chain, chain);
  slot.request.queue = queue;
  slot.orphaned = false;
  begin(slot);
}

// Judges a request and starts what it asks for.
void Blk::begin(Slot& slot) {
  slot.flush_follows = false;
  slot.written = 1;
  const Chain& chain = slot.request.chain;
  Header header{};
  ChainReader reader(host().memory(), chain);
  if (chain.writable_bytes() == 0) return finish(slot, Status::kIoError, 0);
  if (!reader.read(header)) return finish(slot, Status::kIoError, 1);
  switch (header.type) {
    case kTypeIn:
    case kTypeOut:
      return begin_transfer(slot, header.type == kTypeIn, header.sector);
    case kTypeFlush:
      return submit(slot, {.op = BlockOp::kFlush});
    case kTypeGetId:
      return answer_id(slot);
    case kTypeDiscard:
    case kTypeWriteZeroes: {
      const bool discard = header.type == kTypeDiscard;
      if ((offered_ & (discard ? kDiscard : kWriteZeroes)) == 0) break;
      return begin_range(slot, discard);
    }
    default:
      break;
  }
  finish(slot, Status::kUnsupported, 1);
}

void Blk::begin_transfer(Slot& slot, bool in, std::uint64_t sector) {
  const Chain& chain = slot.request.chain;
  SegmentCursor data(host().memory(), in ? chain.writable_segments() : chain.readable_segments());
  if (!in) data.skip(sizeof(Header));
  const std::uint64_t length = data.remaining() - (in ? 1 : 0);
  const auto offset = checked_mul(sector, kSector);
  const auto end = offset ? checked_add(*offset, length) : std::nullopt;
  if (!end || *end > told_size_ || length > kMostBytes || length % kSector != 0 ||
      (!in && (offered_ & kReadOnly) != 0)) {
    return finish(slot, Status::kIoError, 1);
  }
  slot.memory.take(data, length);
  if (slot.memory.bytes() != length) return finish(slot, Status::kIoError, 1);
  if (in) slot.written = length + 1;
  const bool write_through = !in && !writeback();
  const bool durable = write_through && backend_->limits().durable_writes && alone(slot);
  slot.flush_follows = write_through && !durable;
  submit(slot, {.op = in ? BlockOp::kRead : BlockOp::kWrite,
                .offset = *offset,
                .length = length,
                .buffers = {slot.memory.pieces().begin(), slot.memory.pieces().end()},
                .durable = durable});
}

// Nothing else is under way or waits in its queue, so that nobody could share its flush.
bool Blk::alone(const Slot& slot) const {
  return under_way() == 1 && !host().queue(slot.request.queue).available();
}

void Blk::begin_range(Slot& slot, bool discard) {
  ChainReader reader(host().memory(), slot.request.chain);
  reader.skip(sizeof(Header));
  Range range;
  // One segment: what max_discard_seg and max_write_zeroes_seg say.
  if (reader.remaining() != sizeof range || !reader.read(range)) {
    return finish(slot, Status::kIoError, 1);
  }
  const std::uint32_t flags = range.flags;
  if ((flags & ~kFlagUnmap) != 0 || (discard && flags != 0)) {
    return finish(slot, Status::kUnsupported, 1);
  }
  const auto offset = checked_mul(std::uint64_t{range.sector}, kSector);
  const std::uint64_t length = std::uint64_t{range.sectors} * kSector;
  const auto end = offset ? checked_add(*offset, length) : std::nullopt;
  if (!end || *end > told_size_ ||
      range.sectors > (discard ? kMostDiscardSectors : kMostZeroSectors)) {
    return finish(slot, Status::kIoError, 1);
  }
  slot.flush_follows = !writeback();
  submit(slot, {.op = discard ? BlockOp::kDiscard : BlockOp::kWriteZeroes,
                .offset = *offset,
                .length = length,
                .may_unmap = (flags & kFlagUnmap) != 0});
}

void Blk::answer_id(Slot& slot) {
  ChainWriter writer(host().memory(), slot.request.chain);
  std::array<std::byte, kSerialSize> serial{};
  std::memcpy(serial.data(), serial_.data(), serial_.size());
  const std::uint64_t room = std::min<std::uint64_t>(serial.size(), writer.remaining() - 1);
  writer.write(std::span(serial).first(static_cast<std::size_t>(room)));
  finish(slot, Status::kOk, room + 1);
}

void Blk::submit(Slot& slot, BlockRequest request) {
  request.client = this;
  request.tag = slot.index;
  backend_->submit(std::move(request));
}

void Blk::block_done(std::uint64_t tag, int error) {
  if (tag == kCacheFlushTag) {
    // Whether it failed is for the driver's own flushes and writes to find out.
    if (std::exchange(cache_flush_, CacheFlush::kNone) == CacheFlush::kAgain) flush_cache();
    return;
  }
  Slot& slot = *slots_[static_cast<std::size_t>(tag)];
  if (error == 0 && slot.flush_follows) {
    slot.flush_follows = false;
    return submit(slot, {.op = BlockOp::kFlush});
  }
  if (error == 0) return finish(slot, Status::kOk, slot.written);
  finish(slot, error == EOPNOTSUPP ? Status::kUnsupported : Status::kIoError, 1);
}

// The status is the last byte that the driver left room for.
void Blk::finish(Slot& slot, Status status, std::uint64_t written) {
  const InFlight& request = slot.request;
  slot.busy = false;
  slot.memory.clear();
  idle_.push_back(&slot);
  if (slot.orphaned) {
    --orphans_;
    return;
  }
  ++counters_.requests;
  if (status != Status::kOk) ++counters_.errors;
  ChainWriter writer(host().memory(), request.chain);
  if (writer.remaining() != 0) {
    writer.skip(writer.remaining() - 1);
    (void)writer.write(static_cast<std::uint8_t>(status));
  }
  host().queue(request.queue).add_used(request.chain, written);
  used_[request.queue] = true;
}

void Blk::tell_driver() {
  for (std::uint16_t queue = 0; queue < used_.size(); ++queue) {
    if (used_[queue]) host().used(queue);
    used_[queue] = false;
  }
}

void Blk::completed() {
  take_ended();
  tell_driver();
}

void Blk::take_ended() {
  const bool resetting = orphans_ != 0;
  backend_->poll();
  backend_->commit();
  if (resetting && orphans_ == 0) host().reset_finished();
}

void Blk::finish_requests() {
  const bool resetting = orphans_ != 0;
  backend_->drain();
  tell_driver();
  if (resetting && orphans_ == 0) host().reset_finished();
}

Result<void> Blk::refresh_size() {
  VMM_TRY(backend_->refresh_size());
  const std::uint64_t size = backend_->limits().size;
  if (std::exchange(told_size_, size) != size) host().config_changed();
  return {};
}

// What is under way for this queue, or for all, has nobody who waits for it any more. How much that
// is.
std::size_t Blk::orphan(const std::uint16_t* queue) {
  std::size_t count = 0;
  for (const auto& slot : slots_) {
    if (!slot->busy || (queue != nullptr && slot->request.queue != *queue)) continue;
    ++count;
    if (!slot->orphaned) ++orphans_;
    slot->orphaned = true;
    slot->flush_follows = false;
  }
  return count;
}

bool Blk::reset() {
  features_ = 0;
  writeback_ = true;
  used_.assign(used_.size(), false);
  return orphan(nullptr) == 0;
}

bool Blk::reset_queue(std::uint16_t queue) {
  used_[queue] = false;
  return orphan(&queue) == 0;
}

void Blk::save(StateWriter& writer) const {
  State state{.writeback = writeback_};
  // A broken device answers nobody any more.
  for (const auto& slot : slots_) {
    const bool awaited = slot->busy && !slot->orphaned && host().active();
    if (awaited) state.in_flight.push_back(slot->request);
  }
  writer.put(state);
}

Result<void> Blk::restore(const StateReader& reader, bool active, std::uint64_t features) {
  State state = VMM_TRY(reader.get<State>());
  if (!active && !state.in_flight.empty()) {
    return fail(ErrorCode::kBadState, "Requests are in flight of a disk that is not active");
  }
  if (state.in_flight.size() > queue_sizes_.size() * kQueueSize) {
    return fail(ErrorCode::kBadState, "More requests are in flight than the queues have places");
  }
  for (InFlight& request : state.in_flight) {
    if (request.queue >= queue_sizes_.size()) {
      return fail(ErrorCode::kBadState, "A request is in flight in queue {} of {}", request.queue,
                  queue_sizes_.size());
    }
    VMM_TRY(host().queue(request.queue).readmit(request.chain));
  }
  orphan(nullptr);
  backend_->drain();  // what was under way uses the memory that is now another's
  features_ = active ? features : 0;
  writeback_ = state.writeback;
  used_.assign(used_.size(), false);
  restored_ = std::move(state.in_flight);
  return {};
}

// From their beginning: what they did before changes nothing about that.
void Blk::resume() {
  for (InFlight& request : restored_) start(request.queue, request.chain);
  restored_.clear();
  backend_->commit();
  tell_driver();
}

}  // namespace vmm::virtio
