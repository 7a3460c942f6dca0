#include "vmm/block/nbd_session.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/checked.h"

namespace vmm::block {
namespace {

// Calls one(ours, theirs, n) for each piece of the caller's memory from `skip` on.
template <typename Copy>
void for_each_piece(const BlockRequest& request, std::uint64_t skip, std::byte* ours,
                    std::uint64_t length, Copy one) {
  for (const iovec& buffer : request.buffers) {
    if (length == 0) return;
    if (skip >= buffer.iov_len) {
      skip -= buffer.iov_len;
      continue;
    }
    const auto size = std::min<std::uint64_t>(buffer.iov_len - skip, length);
    one(ours, static_cast<std::byte*>(buffer.iov_base) + skip, size);
    ours += size;
    length -= size;
    skip = 0;
  }
}

}  // namespace

// The export may be another than that of the disk's first connection.
int NbdSession::problem_with(const BlockRequest& request) const {
  if (request.op == BlockOp::kFlush) return 0;
  const auto end = checked_add(request.offset, request.length);
  if (!end || *end > offered_.size) return EIO;
  if ((request.offset | request.length) % offered_.minimum != 0) return EINVAL;
  return offered_.read_only && request.op != BlockOp::kRead ? EROFS : 0;
}

// Whatever the library says of commands without a connection.
int NbdSession::told_error(int error) const {
  return error == 0 || connection_->state() == NbdConnection::State::kUp ? error : EIO;
}

void NbdSession::submit(NbdOperation& operation) {
  operation.started = 0;
  operation.under_way = 0;
  const BlockRequest& request = operation.request;
  operation.error = problem_with(request);
  const bool nothing = (request.op == BlockOp::kFlush && (!offered_.flush || offered_.read_only)) ||
                       (request.op == BlockOp::kDiscard && !offered_.trim) ||
                       (request.op != BlockOp::kFlush && request.length == 0);
  if (operation.error != 0 || nothing) return done_.push_back(&operation);
  waiting_.push_back(&operation);
}

void NbdSession::work() {
  collect();
  while (start_next()) {
  }
  collect();
}

bool NbdSession::sends_data(const BlockRequest& request) const {
  return request.op == BlockOp::kRead || request.op == BlockOp::kWrite ||
         (request.op == BlockOp::kWriteZeroes && !offered_.zero);
}

std::uint64_t NbdSession::piece_of(const NbdOperation& operation) const {
  const std::uint64_t left = operation.request.length - operation.started;
  const bool data = sends_data(operation.request);
  const std::uint64_t most = data ? std::min(kPieceSize, offered_.maximum) : kZeroSize;
  return std::min(left, most / offered_.minimum * offered_.minimum);
}

bool NbdSession::start_next() {
  if (waiting_.empty() || commands_.size() >= kMostCommands) return false;
  NbdOperation& operation = *waiting_.front();
  const BlockRequest& request = operation.request;
  Command command{
      .operation = &operation, .offset = operation.started, .length = piece_of(operation)};
  if (sends_data(request)) command.memory_size = command.length;
  if (memory_ + command.memory_size > kMostMemory) return false;
  const std::int64_t number = issue(request, command);
  operation.started += command.length;
  if (number < 0) {
    if (operation.error == 0) operation.error = told_error(static_cast<int>(-number));
  } else {
    ++operation.under_way;
    memory_ += command.memory_size;
    commands_.emplace(number, std::move(command));
  }
  const bool last =
      request.op == BlockOp::kFlush || operation.error != 0 || operation.started >= request.length;
  if (last) {
    operation.started = request.length;
    waiting_.pop_front();
    settle(operation);
  }
  return true;
}

std::int64_t NbdSession::issue(const BlockRequest& request, Command& command) {
  const std::uint64_t at = request.offset + command.offset;
  const auto allocate = [&command] {
    command.memory = std::make_unique_for_overwrite<std::byte[]>(command.memory_size);
    return command.memory.get();
  };
  switch (request.op) {
    case BlockOp::kRead:
      return connection_->read(allocate(), command.length, at);
    case BlockOp::kWrite:
      for_each_piece(
          request, command.offset, allocate(), command.length,
          [](std::byte* ours, const void* theirs, std::size_t n) { std::memcpy(ours, theirs, n); });
      return connection_->write(command.memory.get(), command.length, at);
    case BlockOp::kFlush:
      return connection_->flush();
    case BlockOp::kDiscard:
      return connection_->trim(command.length, at);
    case BlockOp::kWriteZeroes:
      if (offered_.zero) return connection_->zero(command.length, at, request.may_unmap);
      std::memset(allocate(), 0, command.length);
      return connection_->write(command.memory.get(), command.length, at);
  }
  return -EINVAL;
}

void NbdSession::collect() {
  for (;;) {
    const NbdConnection::Ended ended = connection_->next_ended();
    if (ended.command == 0) return;
    const auto found = commands_.find(ended.command);
    if (found == commands_.end()) continue;
    const Command command = std::move(found->second);
    commands_.erase(found);
    memory_ -= command.memory_size;
    NbdOperation& operation = *command.operation;
    if (operation.error == 0) operation.error = told_error(ended.error);
    if (ended.error == 0 && operation.request.op == BlockOp::kRead) {
      for_each_piece(
          operation.request, command.offset, command.memory.get(), command.length,
          [](const std::byte* ours, void* theirs, std::size_t n) { std::memcpy(theirs, ours, n); });
    }
    --operation.under_way;
    settle(operation);
  }
}

// Done when all of it was started and has ended.
void NbdSession::settle(NbdOperation& operation) {
  if (operation.started < operation.request.length || operation.under_way != 0) return;
  const bool begins = !waiting_.empty() && waiting_.front() == &operation;
  if (!begins) done_.push_back(&operation);
}

std::vector<NbdOperation*> NbdSession::take_done() { return std::exchange(done_, {}); }

std::vector<NbdOperation*> NbdSession::give_up(int error) {
  std::vector<NbdOperation*> all(waiting_.begin(), waiting_.end());
  for (const auto& [number, command] : commands_) {
    if (std::find(all.begin(), all.end(), command.operation) == all.end()) {
      all.push_back(command.operation);
    }
  }
  waiting_.clear();
  for (NbdOperation* const operation : all) {
    if (operation->error == 0) operation->error = error;
  }
  return all;
}

}  // namespace vmm::block
