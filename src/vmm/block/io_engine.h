// Runs reads, writes and their like on the host without waiting for them: with io_uring, or with a
// few threads where there is none.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "base/result.h"

namespace vmm::block {

enum class IoOp : std::uint8_t {
  kNothing,    // succeeds, as asynchronously as the others
  kRead,       // preadv(2)
  kWrite,      // pwritev(2)
  kSync,       // fdatasync(2)
  kFallocate,  // fallocate(2)
};

struct IoTask;

// Is told how a system call ended.
class IoOwner {
 public:
  virtual ~IoOwner() = default;
  // `result` as the system call's, or -errno. From poll() and drain() only. The task is the owner's
  // again and may be submitted anew.
  virtual void io_done(IoTask& task, std::int64_t result) = 0;
};

// One system call. Stays where it is until io_done().
struct IoTask {
  IoOwner* owner = nullptr;
  IoOp op = IoOp::kNothing;
  int fd = -1;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;             // kFallocate
  int mode = 0;                         // kFallocate
  std::span<const iovec> buffers = {};  // kRead, kWrite: at most IOV_MAX
  bool cached = false;                  // kRead, kWrite: through the host's page cache
  bool local = false;                   // kWrite: that takes it without asking a server
  bool durable = false;                 // kWrite: RWF_DSYNC
};

// Externally synchronised. The destructor expects that nothing is under way: drain() comes first.
class IoEngine {
 public:
  virtual ~IoEngine() = default;
  virtual std::string_view name() const noexcept = 0;  // "io_uring", "threads"
  virtual void submit(IoTask& task) = 0;
  virtual void commit() = 0;  // starts what was submitted
  virtual void poll() = 0;    // tells owners of what has ended; does not wait
  virtual void drain() = 0;   // waits for all, and what their owners submit meanwhile
  virtual int event_fd() const noexcept = 0;  // readable when poll() has something to do
  // As BlockBackend's.
  virtual void set_quiet(bool) {}
  virtual bool ready() const noexcept { return false; }
};

// Errors: kUnsupported where the host's kernel lacks io_uring or does not let us have it.
Result<std::unique_ptr<IoEngine>> make_uring_engine();
// Threads named "disk", started when there is work for them.
Result<std::unique_ptr<IoEngine>> make_thread_engine();

}  // namespace vmm::block
