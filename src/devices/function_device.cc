#include "devices/function_device.h"

#include <utility>

#include "base/le.h"
#include "devices/state_io.h"

namespace vmm {

FunctionDevice::FunctionDevice(std::string id, Handlers handlers)
    : id_(std::move(id)), handlers_(std::move(handlers)) {}

void FunctionDevice::read(const IoAccess& access, std::span<std::byte> data) {
  if (handlers_.read) store_le(data, handlers_.read(access, data.size()));
}

void FunctionDevice::write(const IoAccess& access, std::span<const std::byte> data) {
  if (handlers_.write) handlers_.write(access, data.size(), load_le(data));
}

void FunctionDevice::reset() {
  if (handlers_.reset) handlers_.reset();
}

void FunctionDevice::save(StateWriter& writer) const {
  writer.put(State{.bytes = {handlers_.state.take()}});
}

Result<void> FunctionDevice::restore(const StateReader& reader) {
  const State state = VMM_TRY(reader.get<State>());
  return with_context(handlers_.state.give(state.bytes.bytes), "Restore '" + id_ + "'");
}

}  // namespace vmm
