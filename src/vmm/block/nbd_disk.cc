#include "vmm/block/nbd_disk.h"

#include <poll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "base/checked.h"

namespace vmm::block {
namespace {

// Whether it changes what is on the disk.
bool changes(const BlockRequest& request) {
  return request.op == BlockOp::kWrite || request.op == BlockOp::kWriteZeroes ||
         request.op == BlockOp::kDiscard;
}

}  // namespace

Result<std::unique_ptr<NbdDisk>> NbdDisk::open(const NbdOptions& options, const Log& log) {
  std::shared_ptr<const NbdLibrary> library = VMM_TRY(NbdLibrary::load());
  EventFd event = VMM_TRY(EventFd::create());
  EventFd wake = VMM_TRY(EventFd::create());
  std::unique_ptr<NbdDisk> disk(
      new NbdDisk(options, std::move(library), log, std::move(event), std::move(wake)));
  VMM_TRY(disk->wait_for_first_connection());
  return disk;
}

NbdDisk::NbdDisk(NbdOptions options, std::shared_ptr<const NbdLibrary> library, Log log,
                 EventFd event, EventFd wake)
    : options_(std::move(options)),
      library_(std::move(library)),
      log_(std::move(log)),
      event_(std::move(event)),
      wake_(std::move(wake)) {
  thread_.emplace("nbd", [this] { return thread_main(); });
}

NbdDisk::~NbdDisk() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ending_ = true;
  }
  wake_.signal();
}

Result<void> NbdDisk::wait_for_first_connection() {
  NbdExport offered;
  {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return offered_ || first_problem_; });
    if (first_problem_) return tl::unexpected<Error>(*first_problem_);
    offered = *offered_;
  }
  return take_limits(offered);
}

Result<void> NbdDisk::take_limits(const NbdExport& offered) {
  if (offered.read_only && !options_.read_only) {
    return fail(ErrorCode::kBadConfig,
                "The NBD server lets nobody write '{}'; add ',ro' to only read it", options_.uri);
  }
  // What is behind the last whole block cannot be reached.
  const std::uint64_t unit = std::max<std::uint64_t>(offered.minimum, kSectorSize);
  limits_.size = offered.size / unit * unit;
  if (limits_.size == 0) {
    return fail(ErrorCode::kBadConfig, "The NBD server's '{}' is empty", options_.uri);
  }
  limits_.block_size = std::max(offered.minimum, std::uint32_t{kSectorSize});
  limits_.physical_block = std::max(offered.preferred, limits_.block_size);
  limits_.read_only = options_.read_only;
  limits_.discard = options_.discard && offered.trim && !options_.read_only;
  if (!offered.flush && !limits_.read_only) {
    log_(LogLevel::kWarning, "disk",
         "the NBD server of '{}' knows no flush: what the guest flushes is as safe as the server "
         "makes it",
         options_.uri);
  }
  return {};
}

int NbdDisk::problem_with(const BlockRequest& request) const {
  if (request.op == BlockOp::kFlush) return 0;
  const auto end = checked_add(request.offset, request.length);
  if (!end || *end > limits_.size || (request.offset | request.length) % kSectorSize != 0) {
    return EINVAL;
  }
  std::uint64_t memory = 0;
  for (const iovec& buffer : request.buffers) memory += buffer.iov_len;
  const bool transfer = request.op == BlockOp::kRead || request.op == BlockOp::kWrite;
  if (transfer && memory != request.length) return EINVAL;
  return limits_.read_only && request.op != BlockOp::kRead ? EROFS : 0;
}

void NbdDisk::submit(BlockRequest request) {
  if (idle_.empty()) {
    operations_.push_back(std::make_unique<NbdOperation>());
    idle_.push_back(operations_.back().get());
  }
  NbdOperation& operation = *idle_.back();
  idle_.pop_back();
  operation.error = problem_with(request);
  operation.request = std::move(request);
  const bool hint = operation.request.op == BlockOp::kDiscard && !limits_.discard;
  if (hint) operation.request.length = 0;
  submitted_.push_back(&operation);
}

void NbdDisk::commit() {
  if (submitted_.empty()) return;
  under_way_ += submitted_.size();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    queue_.insert(queue_.end(), submitted_.begin(), submitted_.end());
  }
  submitted_.clear();
  wake_.signal();
}

void NbdDisk::poll() {
  (void)event_.take();
  tell();
  commit();  // what clients submitted
}

void NbdDisk::drain() {
  for (;;) {
    tell();
    commit();
    if (under_way_ == 0) return;
    std::unique_lock<std::mutex> lock(mutex_);
    const auto some = [this] { return !results_.empty(); };
    if (changed_.wait_for(lock, options_.drain_patience, some)) continue;
    give_up_ = true;
    take_back_unstarted();
    wake_.signal();
    changed_.wait(lock, some);
  }
}

// What the thread has not seen yet it need not see: it may be looking up a name. Under the lock.
void NbdDisk::take_back_unstarted() {
  for (NbdOperation* const operation : queue_) {
    if (operation->error == 0) operation->error = EIO;
    results_.push_back(operation);
  }
  queue_.clear();
}

void NbdDisk::tell() {
  std::vector<NbdOperation*> results;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    results.swap(results_);
  }
  under_way_ -= results.size();
  for (NbdOperation* const operation : results) {
    BlockClient* const client = operation->request.client;
    const std::uint64_t tag = operation->request.tag;
    const int error = operation->error;
    operation->request.buffers.clear();
    idle_.push_back(operation);
    if (client != nullptr) client->block_done(tag, error);
  }
}

Result<void> NbdDisk::refresh_size() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!offered_) {
    return fail(ErrorCode::kIo, "There is no connection to the NBD server of '{}'", options_.uri);
  }
  const std::uint64_t unit = std::max<std::uint64_t>(offered_->minimum, kSectorSize);
  limits_.size = offered_->size / unit * unit;
  return {};
}

bool NbdDisk::thread_main() {
  begin_to_connect();
  while (take_work()) {
    work();
    publish();
    wait_for_something();
  }
  if (session_ != nullptr) session_->connection().say_goodbye();
  return true;
}

// Hands new requests on. False at the end.
bool NbdDisk::take_work() {
  (void)wake_.take();
  std::deque<NbdOperation*> queue;
  bool give_up = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (ending_) return false;
    queue.swap(queue_);
    give_up = std::exchange(give_up_, false);
  }
  const bool was_idle = session_ != nullptr && !session_->busy();
  for (NbdOperation* const operation : queue) {
    if (operation->error != 0) {
      done_.push_back(operation);
    } else if (session_ == nullptr || (lost_writes_ && operation->request.op == BlockOp::kFlush)) {
      refuse(*operation);
    } else {
      operation->writes = writes_;
      session_->submit(*operation);
    }
  }
  if (was_idle) deadline_ = Clock::now() + kPatience;
  if (give_up && session_ != nullptr && session_->busy()) lost("it did not finish in time");
  return true;
}

// There is no server that could do it.
void NbdDisk::refuse(NbdOperation& operation) {
  operation.error = EIO;
  if (operation.request.op == BlockOp::kFlush) lost_writes_ = false;  // now the guest knows
  done_.push_back(&operation);
}

void NbdDisk::begin_to_connect() {
  deadline_ = Clock::now() + kConnectPatience;
  auto connection = NbdConnection::connect(library_, options_.uri);
  if (connection) {
    connecting_ = *std::move(connection);
  } else {
    lost(connection.error().message(), connection.error().code());
  }
}

void NbdDisk::work() {
  const Clock::time_point now = Clock::now();
  if (session_ == nullptr && connecting_ == nullptr && !stopped_ && now >= retry_at_) {
    begin_to_connect();
  }
  if (connecting_ != nullptr) {
    switch (connecting_->state()) {
      case NbdConnection::State::kConnecting:
        if (now >= deadline_) lost("it does not answer");
        break;
      case NbdConnection::State::kUp:
        established();
        break;
      case NbdConnection::State::kLost:
        lost(connecting_->problem());
        break;
    }
  }
  if (session_ == nullptr) return;
  session_->work();
  const std::vector<NbdOperation*> done = session_->take_done();
  for (NbdOperation* const operation : done) finished(*operation);
  if (!done.empty()) deadline_ = now + kPatience;
  if (session_->connection().state() == NbdConnection::State::kLost) {
    lost(session_->connection().problem());
  } else if (session_->busy() && now >= deadline_) {
    lost("it does not answer");
  }
}

void NbdDisk::established() {
  const Result<NbdExport> offered = connecting_->offered();
  if (!offered) return lost(offered.error().message());
  session_ = std::make_unique<NbdSession>(std::move(connecting_), *offered);
  connected_at_ = Clock::now();
  if (std::exchange(told_of_loss_, false)) {
    log_(LogLevel::kWarning, "disk", "connected to the NBD server of '{}' again", options_.uri);
  }
  ever_connected_ = true;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    offered_ = *offered;
  }
  changed_.notify_all();
}

// There is no connection any more, or none yet; the next attempt waits.
void NbdDisk::lost(const std::string& why, ErrorCode code) {
  const std::string reason = why.empty() ? "the connection was lost" : why;
  if (session_ != nullptr) {
    for (NbdOperation* const operation : session_->give_up(EIO)) done_.push_back(operation);
    if (session_->offered().flush && writes_ != durable_writes_) lost_writes_ = true;
    durable_writes_ = writes_;
    // A server that keeps breaking off is not asked more often than one that is not there.
    if (Clock::now() - connected_at_ >= kLongestWait) wait_ = kFirstWait;
  }
  session_.reset();
  connecting_.reset();
  retry_at_ = Clock::now() + wait_;
  wait_ = std::min(wait_ * 2, kLongestWait);
  if (ever_connected_ && !std::exchange(told_of_loss_, true)) {
    log_(LogLevel::kWarning, "disk",
         "the NBD server of '{}' is gone ({}): the guest gets I/O errors until it is back",
         options_.uri, reason);
  }
  stopped_ = !ever_connected_;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    offered_.reset();
    if (stopped_) {
      first_problem_.emplace(
          code, fmt::format("Connect to the NBD server of '{}': {}", options_.uri, reason));
    }
  }
  changed_.notify_all();
}

void NbdDisk::finished(NbdOperation& operation) {
  const BlockRequest& request = operation.request;
  if (operation.error == 0 && changes(request)) ++writes_;
  if (operation.error == 0 && request.op == BlockOp::kFlush) {
    durable_writes_ = std::max(durable_writes_, operation.writes);
  }
  done_.push_back(&operation);
}

void NbdDisk::publish() {
  if (done_.empty()) return;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    results_.insert(results_.end(), done_.begin(), done_.end());
  }
  done_.clear();
  changed_.notify_all();
  event_.signal();
}

void NbdDisk::wait_for_something() {
  NbdConnection* const connection =
      session_ != nullptr ? &session_->connection() : connecting_.get();
  std::array<pollfd, 2> waits{pollfd{wake_.fd(), POLLIN, 0}, pollfd{-1, 0, 0}};
  if (connection != nullptr) waits[1] = {connection->fd(), connection->events(), 0};
  int timeout = -1;
  if (const Clock::time_point when = next_deadline(); when != Clock::time_point::max()) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(when - Clock::now());
    timeout = static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 60'000));
  }
  if (::poll(waits.data(), waits.size(), timeout) <= 0) return;
  if (connection != nullptr && waits[1].revents != 0) connection->ready(waits[1].revents);
}

NbdDisk::Clock::time_point NbdDisk::next_deadline() const {
  if (connecting_ != nullptr || (session_ != nullptr && session_->busy())) return deadline_;
  if (session_ != nullptr || stopped_) return Clock::time_point::max();
  return retry_at_;
}

}  // namespace vmm::block
