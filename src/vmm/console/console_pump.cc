#include "vmm/console/console_pump.h"

#include <poll.h>
#include <pthread.h>

#include <algorithm>
#include <array>

#include "base/start_thread.h"

namespace vmm {
namespace {

// One read. The filter may make at most as many bytes again out of it.
constexpr std::size_t kReadSize = 4096;
constexpr std::size_t kReadRoom = 2 * kReadSize;

// Marks for the buffer: above the first the guest has to wait, below the second it may go on.
std::size_t high_water(std::size_t capacity) { return capacity / 4 * 3; }
std::size_t low_water(std::size_t capacity) { return capacity / 2; }

}  // namespace

// Slots of one poll(2), by name. A descriptor of -1 is skipped by the kernel.
struct ConsolePump::Round {
  enum Slot : std::size_t { kWake, kReadable, kWritable, kNoticeable, kHangUp, kSpace, kSlots };
  std::array<pollfd, kSlots> fds;
  int timeout = -1;  // milliseconds
  bool recheck = false;

  bool ready(Slot slot) const { return fds[slot].fd >= 0 && fds[slot].revents != 0; }
};

Result<std::unique_ptr<ConsolePump>> ConsolePump::create(std::unique_ptr<ConsoleEndpoint> endpoint,
                                                         ConsoleOptions options) {
  options.input_buffer = std::max(options.input_buffer, kReadRoom);
  EventFd wake = VMM_TRY(EventFd::create());
  std::unique_ptr<ConsolePump> pump(
      new ConsolePump(std::move(endpoint), std::move(options), std::move(wake)));
  if (pump->options_.started) VMM_TRY(pump->start());
  return pump;
}

Result<void> ConsolePump::start() {
  const std::lock_guard lock(starting_);
  if (!thread_.joinable()) {
    thread_ = VMM_TRY(start_thread("a console", [this] { thread_main(); }));
  }
  return {};
}

ConsolePump::ConsolePump(std::unique_ptr<ConsoleEndpoint> endpoint, ConsoleOptions options,
                         EventFd wake)
    : options_(std::move(options)),
      wake_(std::move(wake)),
      endpoint_(std::move(endpoint)),
      waiting_(options_.output_buffer),
      read_ahead_(options_.input_buffer) {}

ConsolePump::~ConsolePump() {
  ending_ = true;
  wake_.signal();
  if (thread_.joinable()) thread_.join();
}

std::size_t ConsolePump::write_now(std::span<const std::byte> bytes) {
  std::size_t done = 0;
  while (done < bytes.size() && stats_.output_error.empty()) {
    const auto taken = endpoint_->try_write(bytes.subspan(done));
    if (!taken) {
      stats_.output_error = taken.error().message();
    } else if (*taken == 0) {
      return done;
    } else {
      done += *taken;
    }
  }
  // Once the output is over, all that comes is lost at once: a guest does not wait for nobody.
  stats_.output_dropped += bytes.size() - done;
  return bytes.size();
}

void ConsolePump::write(std::span<const std::byte> bytes) {
  const std::lock_guard guard(mutex_);
  stats_.output_bytes += bytes.size();
  const bool idle = waiting_.empty();
  const std::size_t done = idle ? write_now(bytes) : 0;
  if (endpoint_->take_change()) wake_.signal();
  if (done == bytes.size()) return;
  const std::size_t kept = waiting_.push(bytes.subspan(done));
  stats_.output_dropped += bytes.size() - done - kept;
  if (waiting_.size() > high_water(options_.output_buffer)) {
    writable_.store(false, std::memory_order_release);
  }
  if (idle) wake_.signal();
}

// What there is above the mark is for whoever saw writable() below it.
std::size_t ConsolePump::room() const noexcept {
  return writable() ? options_.output_buffer - high_water(options_.output_buffer) : 0;
}

void ConsolePump::on_writable(std::function<void()> callback) {
  const std::lock_guard guard(callback_mutex_);
  callback_ = std::move(callback);
}

void ConsolePump::on_peer(std::function<void(bool present)> callback) {
  {
    const std::lock_guard guard(callback_mutex_);
    peer_callback_ = std::move(callback);
    peer_told_.reset();
  }
  wake_.signal();
}

void ConsolePump::connect_input(ConsoleInput input) {
  {
    const std::lock_guard guard(input_mutex_);
    receiver_ = std::move(input);
  }
  wake_.signal();  // something may have been read ahead
}

void ConsolePump::disconnect_input() {
  {
    const std::lock_guard guard(input_mutex_);
    receiver_ = {};
  }
  wake_.signal();  // so that the old receiver's eventfd is not polled any more
}

bool ConsolePump::flush(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  return all_sent_.wait_for(lock, timeout, [this] { return waiting_.empty(); });
}

ConsoleStats ConsolePump::stats() const {
  const std::lock_guard guard(mutex_);
  return stats_;
}

std::string ConsolePump::place() const {
  const std::lock_guard guard(mutex_);
  return endpoint_->place();
}

void ConsolePump::thread_main() {
  pthread_setname_np(pthread_self(), options_.thread_name.substr(0, 15).c_str());
  while (!ending_) {
    Round round = prepare();
    if (::poll(round.fds.data(), round.fds.size(), round.timeout) < 0) continue;  // EINTR
    handle(round);
  }
}

ConsolePump::Round ConsolePump::prepare() {
  Round round;
  round.fds.fill({-1, 0, 0});
  round.fds[Round::kWake] = {wake_.fd(), POLLIN, 0};
  {
    const std::lock_guard guard(mutex_);
    const ConsoleEndpoint::Interest interest = endpoint_->interest();
    if (options_.always_read || read_ahead_.room() >= kReadRoom) {
      round.fds[Round::kReadable] = {interest.readable, POLLIN, 0};
    }
    if (interest.has_output || !waiting_.empty()) {
      round.fds[Round::kWritable] = {interest.writable, POLLOUT, 0};
    }
    round.fds[Round::kNoticeable] = {interest.noticeable, POLLIN, 0};
    round.fds[Round::kHangUp] = {interest.hang_up, 0, 0};
    round.recheck = interest.recheck.count() > 0;
    if (round.recheck) round.timeout = static_cast<int>(interest.recheck.count());
  }
  if (!read_ahead_.empty()) {
    const std::lock_guard guard(input_mutex_);
    // The receiver may be gone before poll(2) is called; its descriptor's number can then at worst
    // cause one idle round.
    if (receiver_.space != nullptr) round.fds[Round::kSpace] = {receiver_.space->fd(), POLLIN, 0};
  }
  return round;
}

void ConsolePump::handle(const Round& round) {
  if (round.ready(Round::kWake)) wake_.take();
  if (round.ready(Round::kReadable)) take_input();
  if (round.recheck || round.ready(Round::kNoticeable) || round.ready(Round::kHangUp)) {
    const std::lock_guard guard(mutex_);
    endpoint_->refresh();
  }
  send_waiting();
  if (!read_ahead_.empty()) deliver_input();
  tell_of_peer();
}

void ConsolePump::tell_of_peer() {
  bool present = true;
  {
    const std::lock_guard guard(mutex_);
    present = endpoint_->has_peer();
  }
  if (!present && !read_ahead_.empty()) return;
  const std::lock_guard guard(callback_mutex_);
  if (!peer_callback_ || peer_told_ == present) return;
  peer_told_ = present;
  peer_callback_(present);
}

void ConsolePump::take_input() {
  std::array<std::byte, kReadSize> bytes;
  std::size_t n = 0;
  {
    const std::lock_guard guard(mutex_);
    n = endpoint_->read(bytes).size;
  }
  const auto read = std::span(bytes).first(n);
  if (n == 0) return;
  std::size_t lost = 0;
  if (options_.input_filter) {
    const std::vector<std::byte> passed = options_.input_filter(read);
    lost = passed.size() - read_ahead_.push(passed);
  } else {
    lost = n - read_ahead_.push(read);
  }
  if (lost != 0) {
    const std::lock_guard guard(mutex_);
    stats_.input_dropped += lost;
  }
}

void ConsolePump::deliver_input() {
  std::size_t total = 0;
  {
    const std::lock_guard guard(input_mutex_);
    if (!receiver_.push) return;
    // Taken back before pushing: room that appears after a push that took too little signals anew.
    if (receiver_.space != nullptr) receiver_.space->take();
    while (!read_ahead_.empty()) {
      const auto front = read_ahead_.front();
      const std::size_t taken = std::min(receiver_.push(front), front.size());
      read_ahead_.pop(taken);
      total += taken;
      if (taken < front.size()) break;
    }
  }
  const std::lock_guard guard(mutex_);
  stats_.input_bytes += total;
}

bool ConsolePump::send_some() {
  if (waiting_.empty()) {
    // A replay of the endpoint's own goes on with an empty write.
    if (stats_.output_error.empty()) (void)endpoint_->try_write({});
    return false;
  }
  const std::size_t done = write_now(waiting_.front());
  waiting_.pop(done);
  return done != 0;
}

void ConsolePump::send_waiting() {
  for (bool more = true; more;) {
    bool reopened = false;
    {
      // One piece at a time: a guest that writes meanwhile does not wait for all of it.
      const std::lock_guard guard(mutex_);
      more = send_some();
      if (waiting_.empty()) all_sent_.notify_all();
      if (!writable() && waiting_.size() < low_water(options_.output_buffer)) {
        writable_.store(true, std::memory_order_release);
        reopened = true;
      }
    }
    if (reopened) {
      const std::lock_guard guard(callback_mutex_);
      if (callback_) callback_();
    }
  }
}

}  // namespace vmm
