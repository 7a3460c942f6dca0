#include "vmm/block/cow_disk.h"

#include <algorithm>
#include <cerrno>

#include "base/checked.h"

namespace vmm::block {
namespace {

std::vector<iovec> slice(const std::vector<iovec>& buffers, std::uint64_t skip,
                         std::uint64_t length) {
  std::vector<iovec> pieces;
  for (const iovec& buffer : buffers) {
    if (length == 0) break;
    if (skip >= buffer.iov_len) {
      skip -= buffer.iov_len;
      continue;
    }
    const auto size = std::min<std::uint64_t>(buffer.iov_len - skip, length);
    pieces.push_back({static_cast<std::byte*>(buffer.iov_base) + skip, size});
    length -= size;
    skip = 0;
  }
  return pieces;
}

}  // namespace

Result<std::unique_ptr<CowDisk>> CowDisk::create(std::unique_ptr<RawDisk> image, Overlay overlay,
                                                 std::shared_ptr<IoEngine> engine,
                                                 const RawDiskOptions& options) {
  // Holes in the overlay cost nothing and read as zeroes: it always may have them.
  auto file =
      VMM_TRY(RawDisk::create(std::move(overlay.file), std::move(engine), {.discard = true}));
  std::unique_ptr<CowDisk> disk(new CowDisk(std::move(image), std::move(file), overlay.layout,
                                            std::move(overlay.map), overlay.kept));
  disk->limits_.discard = options.discard;
  return disk;
}

CowDisk::CowDisk(std::unique_ptr<RawDisk> image, std::unique_ptr<RawDisk> overlay,
                 OverlayLayout layout, SectorMap map, bool kept)
    : image_(std::move(image)),
      overlay_(std::move(overlay)),
      layout_(layout),
      kept_(kept),
      limits_(image_->limits()),
      map_(std::move(map)) {
  limits_.read_only = false;
  limits_.durable_writes = false;  // the map has to follow
  limits_.block_size = std::max(limits_.block_size, overlay_->limits().block_size);
}

CowDisk::~CowDisk() = default;

void CowDisk::submit(BlockRequest request) {
  if (idle_.empty()) {
    operations_.push_back(std::make_unique<Operation>());
    idle_.push_back(operations_.back().get());
  }
  Operation& op = *idle_.back();
  idle_.pop_back();
  op.request = std::move(request);
  op.done = 0;
  const auto end = checked_add(op.request.offset, op.request.length);
  if (op.request.op != BlockOp::kFlush && (!end || *end > limits_.size)) {
    // Refused there with the error that belongs to it.
    op.request.offset = ~std::uint64_t{0};
    return pass_on(op, op.request);
  }
  switch (op.request.op) {
    case BlockOp::kRead:
      return read(op);
    case BlockOp::kWrite:
    case BlockOp::kWriteZeroes:
    case BlockOp::kDiscard: {
      BlockRequest inner = op.request;
      inner.offset += layout_.data;
      inner.may_unmap = true;
      if (inner.op == BlockOp::kDiscard && !limits_.discard) inner.length = 0;
      return pass_on(op, std::move(inner));
    }
    case BlockOp::kFlush:
      if (!kept_) return pass_on(op, BlockRequest{.op = BlockOp::kDiscard});  // nothing, later
      flush_.waiting.push_back(&op);
      if (flush_.served.empty()) begin_flush();
      return;
  }
}

void CowDisk::pass_on(Operation& op, BlockRequest request) {
  request.client = this;
  request.tag = reinterpret_cast<std::uintptr_t>(&op);
  overlay_->submit(std::move(request));
}

// The next run of sectors that are in one place.
void CowDisk::read(Operation& op) {
  const std::uint64_t at = op.request.offset + op.done;
  const std::uint64_t left = op.request.length - op.done;
  if (left < kSectorSize || at % kSectorSize != 0)
    return pass_on(op, op.request);  // all or refused
  const SectorMap::Run run = map_.run_at(at / kSectorSize, left / kSectorSize);
  BlockRequest inner{.op = BlockOp::kRead,
                     .offset = run.held ? layout_.data + at : at,
                     .length = run.sectors * kSectorSize,
                     .client = this,
                     .tag = reinterpret_cast<std::uintptr_t>(&op)};
  inner.buffers = slice(op.request.buffers, op.done, inner.length);
  op.done += inner.length;
  (run.held ? overlay_ : image_)->submit(std::move(inner));
}

void CowDisk::block_done(std::uint64_t tag, int error) {
  if (tag == kFlushTag) return flush_done(error);
  Operation& op = *reinterpret_cast<Operation*>(static_cast<std::uintptr_t>(tag));
  if (error != 0) return finish(op, error);
  switch (op.request.op) {
    case BlockOp::kRead:
      return op.done < op.request.length ? read(op) : finish(op, 0);
    case BlockOp::kWrite:
    case BlockOp::kWriteZeroes:
      map_.set(op.request.offset / kSectorSize, op.request.length / kSectorSize);
      return finish(op, 0);
    case BlockOp::kDiscard:
    case BlockOp::kFlush:
      return finish(op, 0);
  }
}

void CowDisk::begin_flush() {
  flush_.served.swap(flush_.waiting);
  // Bits of what has been written by now. What is written from here on may not become durable with
  // this round, so its bits must not, either.
  flush_.pages = map_.take_changed();
  flush_.error = 0;
  flush_.step = Flush::Step::kData;
  sync();
}

void CowDisk::sync() {
  flush_.under_way = 1;
  overlay_->submit({.op = BlockOp::kFlush, .client = this, .tag = kFlushTag});
}

void CowDisk::write_map() {
  flush_.under_way = flush_.pages.size();
  for (const SectorMap::Page& page : flush_.pages) {
    overlay_->submit({.op = BlockOp::kWrite,
                      .offset = layout_.map + page.index * SectorMap::kPageSize,
                      .length = SectorMap::kPageSize,
                      .buffers = {{page.words->data(), SectorMap::kPageSize}},
                      .client = this,
                      .tag = kFlushTag});
  }
}

void CowDisk::flush_done(int error) {
  if (flush_.error == 0) flush_.error = error;
  if (--flush_.under_way != 0) return;
  const bool last = flush_.step == Flush::Step::kSeal || flush_.pages.empty();
  if (flush_.error != 0 || last) return end_flush();
  if (flush_.step == Flush::Step::kData) {
    flush_.step = Flush::Step::kMap;
    write_map();
  } else {
    flush_.step = Flush::Step::kSeal;
    sync();
  }
}

void CowDisk::end_flush() {
  if (flush_.error != 0) map_.give_back(flush_.pages);
  flush_.pages.clear();
  std::vector<Operation*> served;
  served.swap(flush_.served);
  const int error = flush_.error;
  if (!flush_.waiting.empty()) begin_flush();
  for (Operation* const op : served) finish(*op, error);
}

void CowDisk::finish(Operation& op, int error) {
  BlockClient* const client = op.request.client;
  const std::uint64_t tag = op.request.tag;
  op.request.buffers.clear();
  idle_.push_back(&op);
  if (client != nullptr) client->block_done(tag, error);
}

}  // namespace vmm::block
