// Moves bytes between a machine and a ConsoleEndpoint: writes at once what the endpoint takes at
// once, and leaves the rest and all input to a thread.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "base/byte_ring.h"
#include "vmm/console/console_backend.h"
#include "vmm/console/console_endpoint.h"

namespace vmm {

// Locks: mutex_ guards the output and the endpoint, input_mutex_ the receiver and callback_mutex_
// the callbacks. A device's lock may be held when mutex_ is taken (write()); no device's lock is
// taken while mutex_ is held, but one is under input_mutex_ and under callback_mutex_.
class ConsolePump final : public ConsoleBackend {
 public:
  static Result<std::unique_ptr<ConsolePump>> create(std::unique_ptr<ConsoleEndpoint> endpoint,
                                                     ConsoleOptions options);
  // Output that is still waiting is lost: flush() first.
  ~ConsolePump() override;

  void write(std::span<const std::byte> bytes) override;
  bool writable() const noexcept override { return writable_.load(std::memory_order_acquire); }
  std::size_t room() const noexcept override;
  void on_writable(std::function<void()> callback) override;
  void on_peer(std::function<void(bool present)> callback) override;

  Result<void> start() override;
  void connect_input(ConsoleInput input) override;
  void disconnect_input() override;
  bool flush(std::chrono::milliseconds timeout) override;
  ConsoleStats stats() const override;
  std::string place() const override;

 private:
  struct Round;  // what one poll(2) waits for
  ConsolePump(std::unique_ptr<ConsoleEndpoint> endpoint, ConsoleOptions options, EventFd wake);
  void thread_main();
  Round prepare();
  void handle(const Round& round);
  void take_input();
  void deliver_input();
  void send_waiting();
  void tell_of_peer();
  bool send_some();                                         // mutex_ held
  std::size_t write_now(std::span<const std::byte> bytes);  // mutex_ held

  const ConsoleOptions options_;
  const EventFd wake_;
  std::atomic<bool> ending_{false};
  std::atomic<bool> writable_{true};

  mutable std::mutex mutex_;
  std::condition_variable all_sent_;
  std::unique_ptr<ConsoleEndpoint> endpoint_;
  ByteRing waiting_;
  ConsoleStats stats_;

  std::mutex input_mutex_;
  ConsoleInput receiver_;
  ByteRing read_ahead_;  // used by the thread only

  std::mutex callback_mutex_;
  std::function<void()> callback_;
  std::function<void(bool)> peer_callback_;
  std::optional<bool> peer_told_;

  std::mutex starting_;  // guards the making of the thread
  std::thread thread_;
};

}  // namespace vmm
