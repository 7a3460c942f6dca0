// POST code port 0x80 (IBM PC/AT Technical Reference, "BIOS"): firmware writes how far it has come,
// Linux writes to it as a short delay. The last byte is remembered and reads back, as in the spare
// DMA page register that lies there. Nothing else happens.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/result.h"
#include "devices/device.h"
#include "devices/state_id.h"

namespace vmm {

class PostCode final : public Device {
 public:
  static constexpr std::uint16_t kPort = 0x80;
  static constexpr std::uint64_t kSize = 1;  // width 1

  struct State {
    static constexpr StateId kId{"post_code", 1};
    std::uint8_t code = 0;
    bool operator==(const State&) const = default;
    static void fields(auto&& f) { f("code", &State::code); }
  };

  explicit PostCode(std::string id);

  const State& state() const noexcept { return s_; }

  std::string_view id() const noexcept override { return id_; }
  void read(const IoAccess& access, std::span<std::byte> data) override;
  void write(const IoAccess& access, std::span<const std::byte> data) override;
  void reset() override;
  void save(StateWriter& writer) const override;
  Result<void> restore(const StateReader& reader) override;

 private:
  State s_;
  std::string id_;
};

}  // namespace vmm
