// Where a disk's sectors are: the one interface between a disk device and the host.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "devices/block_rates.h"

namespace vmm {

enum class BlockOp : std::uint8_t {
  kRead,
  kWrite,
  kFlush,        // what was completed before is durable when this completes
  kDiscard,      // the range's content does not matter any more; a hint
  kWriteZeroes,  // the range reads as zeroes afterwards
};

// Is told what became of a request.
class BlockClient {
 public:
  virtual ~BlockClient() = default;
  // `error`: 0, or an errno value. From BlockBackend::poll() and drain() only; may submit more.
  virtual void block_done(std::uint64_t tag, int error) = 0;
};

struct BlockRequest {
  BlockOp op = BlockOp::kRead;
  std::uint64_t offset = 0;  // bytes; offset and length are multiples of kSectorSize
  std::uint64_t length = 0;  // bytes; for kRead and kWrite the sum of `buffers`
  // Memory of the caller's that stays until the request is done; others may change its bytes.
  std::vector<iovec> buffers = {};
  bool may_unmap = false;  // kWriteZeroes: the range may be given back to the host
  bool durable = false;    // kWrite, with BlockLimits::durable_writes: it is when it is done
  BlockClient* client = nullptr;
  std::uint64_t tag = 0;  // for the client
};

// What a disk is. Constant but for the size, and for durable_writes, which may be lost.
struct BlockLimits {
  std::uint64_t size = 0;              // bytes, a multiple of kSectorSize
  std::uint32_t block_size = 512;      // what is best addressed at once: a power of two
  std::uint32_t physical_block = 512;  // the same of what lies below, if known
  bool read_only = false;
  bool discard = false;  // kDiscard does something
  // BlockRequest::durable is obeyed: for one write alone that costs less than a flush after it.
  bool durable_writes = false;
};

// Externally synchronised: by the lock of the device that uses it. Requests run concurrently and in
// no order; at most as many as the device lets a guest have are under way.
class BlockBackend {
 public:
  static constexpr std::uint64_t kSectorSize = 512;

  virtual ~BlockBackend() = default;  // nothing is under way any more: drain() comes first
  virtual BlockLimits limits() const noexcept = 0;
  // Takes a request. Whatever is wrong with it is told to its client, later: never from here.
  virtual void submit(BlockRequest request) = 0;
  // Starts what was submitted since the last time.
  virtual void commit() = 0;
  // Tells clients what has been done since the last time. Does not wait.
  virtual void poll() = 0;
  // A descriptor that is readable when poll() has something to do. Constant.
  virtual int event_fd() const noexcept = 0;
  // The descriptor may keep quiet while somebody looks by himself: with ready(), which is true when
  // poll() has something to do and that can be seen without a system call.
  virtual void set_quiet(bool) {}
  virtual bool ready() const noexcept { return false; }
  // Waits until every request is done, and tells.
  virtual void drain() = 0;
  // Asks the host anew how large the image is. Errors: kIo.
  virtual Result<void> refresh_size() = 0;
  // Other limits from now on. Errors: kUnsupported by a disk that was opened without any.
  virtual Result<void> set_rates(const BlockRates&) {
    return fail(ErrorCode::kUnsupported,
                "The disk was opened without limits; with some from the start they can be changed");
  }
};

}  // namespace vmm
