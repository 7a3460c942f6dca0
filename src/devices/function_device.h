// A device made of functions: for programs that embed a machine and want to answer a few ports or
// addresses of their own (VmConfig::devices, docs/library.md).
//
// What its functions keep is theirs: it is in snapshots when two of them say what it is
// (Handlers::state). What has many registers derives from Device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "devices/blob.h"
#include "devices/device.h"
#include "devices/function_state.h"
#include "devices/state_id.h"

namespace vmm {

class FunctionDevice final : public Device, public StateInFunctions {
 public:
  // Called on the thread of the CPU that makes the access, one call at a time, with the device's
  // lock held: they must not wait, and must not call the machine but through what DeviceHost has.
  struct Handlers {
    // The value of a read of `width` bytes: 1, 2, 4 or 8, as the window declares. Without it reads
    // are all ones.
    std::function<std::uint64_t(const IoAccess& access, std::size_t width)> read = {};
    std::function<void(const IoAccess& access, std::size_t width, std::uint64_t value)> write = {};
    std::function<void()> reset = {};  // power-on
    FunctionState state = {};
  };
  struct State {
    static constexpr StateId kId{"function_device", 1};
    Blob bytes;
    bool operator==(const State&) const = default;
    static void fields(auto&& f) { f("bytes", &State::bytes); }
  };

  // `id` is unique in a machine.
  FunctionDevice(std::string id, Handlers handlers);

  std::string_view id() const noexcept override { return id_; }
  void read(const IoAccess& access, std::span<std::byte> data) override;
  void write(const IoAccess& access, std::span<const std::byte> data) override;
  void reset() override;
  void save(StateWriter& writer) const override;
  Result<void> restore(const StateReader& reader) override;
  bool savable() const noexcept override { return handlers_.state.complete(); }

 private:
  const std::string id_;
  const Handlers handlers_;
};

}  // namespace vmm
