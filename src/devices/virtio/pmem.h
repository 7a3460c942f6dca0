// Virtio persistent memory: VIRTIO 1.2, section 5.19.
//
// Emulated: where the memory is, and flushes. The memory itself is the guest's to use without us.
// Not emulated: SHMEM_REGION, which later versions of the specification have.
// Threats: requests without end, of any kind and size: what is no flush is answered with an error;
// requests that wait share one flush of the host's, so that one is under way at most. It touches no
// guest memory: a reset need not wait for it. The memory's pages may vanish when somebody cuts the
// file: nothing here, and no device at all, touches them (RegionKind::kFile).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "devices/pmem_backend.h"
#include "devices/state_id.h"
#include "devices/virtio/device.h"

namespace vmm::virtio {

class Pmem final : public Device {
 public:
  static constexpr std::uint16_t kQueueSize = 64;
  static constexpr std::uint32_t kConfigSize = 16;
  // Section 5.19.6.
  static constexpr std::uint32_t kFlush = 0;
  static constexpr std::uint32_t kOk = 0, kIoError = 1;

  struct State {
    static constexpr StateId kId{"virtio_pmem", 1};
    std::vector<Chain> waiting = {};  // flushes that the driver has had no answer to
    bool operator==(const State&) const = default;
    static void fields(auto&& f) { f("waiting", &State::waiting); }
  };
  // Since creation.
  struct Counters {
    std::uint64_t flushes = 0;  // of the driver's, answered
    std::uint64_t errors = 0;   // requests answered with an error
  };

  Pmem(std::string id, GpaRange range, std::shared_ptr<PmemBackend> backend);
  ~Pmem() override;

  // The backend's event_fd() is readable. On the event loop's thread, with the device's lock held.
  void completed();
  const Counters& counters() const noexcept { return counters_; }

  std::string_view id() const noexcept override { return id_; }
  DeviceType type() const noexcept override { return DeviceType::kPmem; }
  std::span<const std::uint16_t> queue_sizes() const noexcept override;
  std::uint32_t config_size() const noexcept override { return kConfigSize; }
  void read_config(std::uint32_t offset, std::span<std::byte> data) const override;
  void activate(std::uint64_t) override {}
  bool process(std::uint16_t queue) override;
  bool reset() override;
  bool reset_queue(std::uint16_t queue) override;
  void save(StateWriter& writer) const override;
  Result<void> restore(const StateReader& reader, bool active, std::uint64_t features) override;
  void resume() override;

 private:
  void take(Chain& chain);
  void answer(const Chain& chain, std::uint32_t status);
  void start();

  State s_;
  const std::string id_;
  const GpaRange range_;
  const std::shared_ptr<PmemBackend> backend_;
  Counters counters_;
  bool under_way_ = false;   // a flush of the backend's
  std::size_t covered_ = 0;  // of those that wait, the first ones: it is theirs
  Chain chain_;
};

}  // namespace vmm::virtio
