// A disk at an NBD server (the NBD protocol, URIs as in its documentation).
//
// A thread named "nbd" talks to the server; the disk's side hands requests over and takes their
// results. When the server goes away, what was under way ends with EIO and so does all that comes
// until there is a connection again, which is tried at growing intervals. Writes that the old
// server acknowledged may have been lost with it: the flush that follows fails, once, as fsync(2)
// does.
// Threats: the server may send anything, or nothing. libnbd judges what it sends; it never sees
// the guest's memory; a server that does not answer loses the connection after kPatience; memory
// is bounded by NbdSession, what is logged by the intervals.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/background.h"
#include "base/event_fd.h"
#include "base/log.h"
#include "devices/block_backend.h"
#include "vmm/block/nbd_library.h"
#include "vmm/block/nbd_session.h"

namespace vmm::block {

struct NbdOptions {
  std::string uri = {};
  bool read_only = false;
  bool discard = false;
  // How long drain() waits for a server that finishes nothing.
  std::chrono::milliseconds drain_patience = std::chrono::seconds(10);
};

class NbdDisk final : public BlockBackend {
 public:
  // For the server to accept a connection, and to finish a command.
  static constexpr std::chrono::seconds kConnectPatience{10};
  static constexpr std::chrono::seconds kPatience{30};
  // Between attempts to connect again: doubled each time.
  static constexpr std::chrono::milliseconds kFirstWait{100};
  static constexpr std::chrono::milliseconds kLongestWait{10'000};

  // Connects first. Errors: kBadConfig for what is no URI, or an export that cannot be written or
  // holds nothing; kUnsupported without libnbd; kIo.
  static Result<std::unique_ptr<NbdDisk>> open(const NbdOptions& options, const Log& log);
  // Waits for a look-up of the server's name that is under way, and nothing else.
  ~NbdDisk() override;

  BlockLimits limits() const noexcept override { return limits_; }
  void submit(BlockRequest request) override;
  void commit() override;
  void poll() override;
  int event_fd() const noexcept override { return event_.fd(); }
  void drain() override;
  Result<void> refresh_size() override;

 private:
  using Clock = std::chrono::steady_clock;

  NbdDisk(NbdOptions options, std::shared_ptr<const NbdLibrary> library, Log log, EventFd event,
          EventFd wake);
  Result<void> wait_for_first_connection();
  Result<void> take_limits(const NbdExport& offered);
  int problem_with(const BlockRequest& request) const;
  void tell();
  void take_back_unstarted();

  // The thread's.
  bool thread_main();
  bool take_work();
  void begin_to_connect();
  void established();
  void lost(const std::string& why, ErrorCode code = ErrorCode::kIo);
  void work();
  void refuse(NbdOperation& operation);
  void finished(NbdOperation& operation);
  void publish();
  void wait_for_something();
  Clock::time_point next_deadline() const;

  const NbdOptions options_;
  const std::shared_ptr<const NbdLibrary> library_;
  const Log log_;
  const EventFd event_;  // for the disk's side
  const EventFd wake_;   // for the thread

  // The disk's side.
  BlockLimits limits_;
  std::vector<std::unique_ptr<NbdOperation>> operations_;  // as many as ever were under way
  std::vector<NbdOperation*> idle_;
  std::vector<NbdOperation*> submitted_;
  std::size_t under_way_ = 0;

  // Between it and the thread.
  std::mutex mutex_;  // guards all to the next comment
  std::condition_variable changed_;
  std::deque<NbdOperation*> queue_;
  std::vector<NbdOperation*> results_;
  std::optional<NbdExport> offered_;    // of the connection that is up
  std::optional<Error> first_problem_;  // of the first attempt to connect
  bool ending_ = false;
  bool give_up_ = false;  // whoever waits for the end has waited long enough

  // The thread's.
  std::unique_ptr<NbdConnection> connecting_;
  std::unique_ptr<NbdSession> session_;
  std::vector<NbdOperation*> done_;
  bool ever_connected_ = false;
  bool stopped_ = false;  // the first attempt failed: nobody wants another
  bool told_of_loss_ = false;
  Clock::time_point connected_at_{};
  Clock::time_point deadline_{};  // of the server, while something is expected of it
  Clock::time_point retry_at_{};
  std::chrono::milliseconds wait_ = kFirstWait;
  std::uint64_t writes_ = 0;          // that were acknowledged
  std::uint64_t durable_writes_ = 0;  // of these, before a flush that succeeded
  bool lost_writes_ = false;          // and the guest does not know yet

  std::optional<Background<bool>> thread_;  // last: it uses the rest
};

}  // namespace vmm::block
