#include "devices/virtio/function_device.h"

#include <algorithm>
#include <utility>

#include "devices/state_io.h"

namespace vmm::virtio {

FunctionDevice::FunctionDevice(std::string id, Options options, Handlers handlers)
    : id_(std::move(id)),
      options_(std::move(options)),
      handlers_(std::move(handlers)),
      config_(options_.config) {}

// --- Requests

bool FunctionDevice::process(std::uint16_t queue) {
  bool any = false;
  const bool more = drain(queue, chain_, [&](Chain& chain) {
    const std::uint64_t token = next_token_++;
    if (ask(token, queue, chain)) {
      any = true;
    } else {
      kept_.emplace(token, Kept{token, queue, std::move(chain)});
    }
  });
  if (any) host().used(queue);
  return more;
}

bool FunctionDevice::ask(std::uint64_t token, std::uint16_t queue, const Chain& chain) {
  const GuestMemory& memory = host().memory();
  Request request{token, queue, ChainReader(memory, chain), ChainWriter(memory, chain)};
  if (handlers_.request && handlers_.request(*this, request) == Answer::kLater) return false;
  host().queue(queue).push_used(chain, request.writable.written());
  return true;
}

bool FunctionDevice::finish(std::uint64_t token, const std::function<void(Request&)>& fill) {
  const auto found = kept_.find(token);
  if (found == kept_.end()) return false;
  // First out of the list: `fill` may come back.
  const Kept kept = std::move(found->second);
  kept_.erase(found);
  const GuestMemory& memory = host().memory();
  Request request{token, kept.queue, ChainReader(memory, kept.chain),
                  ChainWriter(memory, kept.chain)};
  fill(request);
  host().queue(kept.queue).push_used(kept.chain, request.writable.written());
  host().used(kept.queue);
  return true;
}

// --- Configuration space

void FunctionDevice::read_config(std::uint32_t offset, std::span<std::byte> data) const {
  std::copy_n(config_.begin() + offset, data.size(), data.begin());
}

void FunctionDevice::write_config(std::uint32_t offset, std::span<const std::byte> data) {
  if (handlers_.write_config) handlers_.write_config(*this, offset, data);
}

void FunctionDevice::set_config(std::uint32_t offset, std::span<const std::byte> bytes) {
  if (offset > config_.size()) return;
  const std::size_t count = std::min(bytes.size(), config_.size() - offset);
  std::copy_n(bytes.begin(), count, config_.begin() + offset);
  host().config_changed();
}

// --- Life

void FunctionDevice::activate(std::uint64_t features) {
  if (handlers_.activate) handlers_.activate(*this, features);
}

bool FunctionDevice::reset() {
  kept_.clear();
  config_ = options_.config;
  if (handlers_.reset) handlers_.reset();
  return true;
}

bool FunctionDevice::reset_queue(std::uint16_t queue) {
  std::erase_if(kept_, [queue](const auto& one) { return one.second.queue == queue; });
  return true;
}

void FunctionDevice::save(StateWriter& writer) const {
  State state{.config = {config_},
              .next_token = next_token_,
              .kept = {},
              .bytes = {handlers_.state.take()}};
  for (const auto& [token, kept] : kept_) state.kept.push_back(kept);
  writer.put(state);
}

Result<FunctionDevice::KeptByToken> FunctionDevice::readmitted(const State& state, bool active) {
  KeptByToken all;
  for (Kept kept : state.kept) {
    if (!active || kept.queue >= options_.queue_sizes.size() || kept.token >= state.next_token) {
      return fail(ErrorCode::kBadState, "'{}' was saved with a request that cannot be", id_);
    }
    VMM_TRY(host().queue(kept.queue).readmit(kept.chain));
    if (!all.emplace(kept.token, kept).second) {
      return fail(ErrorCode::kBadState, "'{}' was saved with a request twice", id_);
    }
  }
  return all;
}

Result<void> FunctionDevice::restore(const StateReader& reader, bool active, std::uint64_t) {
  const State state = VMM_TRY(reader.get<State>());
  if (state.config.bytes.size() != config_.size()) {
    return fail(ErrorCode::kBadState, "'{}' has {} bytes of configuration, its saved state {}", id_,
                config_.size(), state.config.bytes.size());
  }
  KeptByToken kept = VMM_TRY(readmitted(state, active));
  VMM_TRY(with_context(handlers_.state.give(state.bytes.bytes), "Restore '" + id_ + "'"));
  config_ = state.config.bytes;
  next_token_ = state.next_token;
  kept_ = std::move(kept);
  return {};
}

void FunctionDevice::resume() {
  const KeptByToken waiting = std::exchange(kept_, {});
  for (const auto& [token, kept] : waiting) {
    if (ask(token, kept.queue, kept.chain)) {
      host().used(kept.queue);
    } else {
      kept_.emplace(token, kept);
    }
  }
}

}  // namespace vmm::virtio
