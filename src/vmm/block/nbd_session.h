// The requests of a disk over one connection to an NBD server.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "devices/block_backend.h"
#include "vmm/block/nbd_connection.h"

namespace vmm::block {

// A request on its way. Stays where it is until it is done.
struct NbdOperation {
  BlockRequest request;
  std::uint64_t started = 0;  // bytes of the request that commands were made of
  std::size_t under_way = 0;  // commands
  int error = 0;              // the first that happened
  std::uint64_t writes = 0;   // kFlush: how many writes had been acknowledged as it began
};

// Cuts requests into commands, and bounds how much memory these take, whatever the guest asks for.
// Data is copied: what the server or the library does never reaches the guest's memory. For one
// thread.
class NbdSession {
 public:
  static constexpr std::size_t kMostCommands = 64;
  static constexpr std::uint64_t kMostMemory = 16U << 20;
  static constexpr std::uint64_t kPieceSize = 1U << 20;  // of data
  static constexpr std::uint64_t kZeroSize = 16U << 20;  // without data

  NbdSession(std::unique_ptr<NbdConnection> connection, const NbdExport& offered)
      : offered_(offered), connection_(std::move(connection)) {}

  NbdConnection& connection() noexcept { return *connection_; }
  const NbdExport& offered() const noexcept { return offered_; }
  bool busy() const noexcept { return !waiting_.empty() || !commands_.empty(); }

  void submit(NbdOperation& operation);
  // Starts what there is room for, and collects what has ended.
  void work();
  // What is done since the last time.
  std::vector<NbdOperation*> take_done();
  // The connection is over: all that was not done, with what went wrong.
  std::vector<NbdOperation*> give_up(int error);

 private:
  struct Command {
    NbdOperation* operation = nullptr;
    std::uint64_t offset = 0;  // within the request
    std::uint64_t length = 0;
    std::unique_ptr<std::byte[]> memory = {};
    std::uint64_t memory_size = 0;
  };
  int problem_with(const BlockRequest& request) const;
  int told_error(int error) const;
  bool sends_data(const BlockRequest& request) const;
  std::uint64_t piece_of(const NbdOperation& operation) const;
  bool start_next();
  std::int64_t issue(const BlockRequest& request, Command& command);
  void collect();
  void settle(NbdOperation& operation);

  const NbdExport offered_;
  std::deque<NbdOperation*> waiting_;         // the first may have begun
  std::map<std::int64_t, Command> commands_;  // under way, by their numbers
  std::uint64_t memory_ = 0;                  // theirs
  std::vector<NbdOperation*> done_;
  const std::unique_ptr<NbdConnection> connection_;  // last: the commands' memory is the library's
};

}  // namespace vmm::block
