// Shared by the console tests: pipes, waiting with a generous end, and a slow receiver.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "base/event_fd.h"
#include "base/unique_fd.h"
#include "vmm/console/console_backend.h"

namespace vmm::test {

inline std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

inline std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

struct Pipe {
  UniqueFd read_end, write_end;
  Pipe() {
    int fds[2] = {-1, -1};
    if (::pipe2(fds, O_CLOEXEC) == 0) {
      read_end.reset(fds[0]);
      write_end.reset(fds[1]);
    }
  }
};

// A pattern in which a lost, doubled or moved byte shows.
inline std::string pattern(std::size_t size) {
  std::string text;
  text.reserve(size + 16);
  for (std::size_t i = 0; text.size() < size; ++i) text += std::to_string(i) + ",";
  text.resize(size);
  return text;
}

// Reads until `size` bytes are there, the other side has closed, or nothing came for ten seconds.
inline std::string read_text(int fd, std::size_t size) {
  std::string text;
  char buffer[4096];
  while (text.size() < size) {
    pollfd ask{fd, POLLIN, 0};
    if (::poll(&ask, 1, 10'000) <= 0) break;
    const ssize_t n = ::read(fd, buffer, std::min(sizeof buffer, size - text.size()));
    if (n <= 0) break;
    text.append(buffer, static_cast<std::size_t>(n));
  }
  return text;
}

// True as soon as `condition` holds; false when it still does not after ten seconds.
inline bool eventually(const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

// A receiver with a FIFO of 16 bytes, as a serial port has, that a test empties.
class SlowReceiver {
 public:
  ConsoleInput input() {
    return {[this](std::span<const std::byte> bytes) { return push(bytes); }, &space_};
  }
  // Takes what is in the FIFO, and says that there is room if the sender was refused any.
  void drain() {
    const std::lock_guard guard(mutex_);
    received_ += fifo_;
    fifo_.clear();
    if (std::exchange(refused_, false)) space_.signal();
  }
  std::string received() {
    const std::lock_guard guard(mutex_);
    return received_;
  }
  // Drains until `size` bytes have come.
  bool receive(std::size_t size) {
    return eventually([&] {
      for (int i = 0; i < 1000; ++i) drain();
      return received().size() >= size;
    });
  }

 private:
  std::size_t push(std::span<const std::byte> bytes) {
    const std::lock_guard guard(mutex_);
    const std::size_t n = std::min<std::size_t>(bytes.size(), 16 - fifo_.size());
    fifo_ += text_of(bytes.first(n));
    refused_ |= n < bytes.size();
    return n;
  }
  EventFd space_ = EventFd::create().value();
  std::mutex mutex_;
  std::string fifo_, received_;
  bool refused_ = false;
};

}  // namespace vmm::test
