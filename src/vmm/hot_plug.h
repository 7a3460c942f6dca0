// Virtio devices on PCI that come and go while the guest runs.
//
// A device comes in one step: it is there, then the guest is told. It goes in several:
//
//   asked      unplug() tells the guest and waits for it to eject the slot, up to the deadline
//   leaving    nothing of the guest's reaches it any more and it has been reset; the host may still
//              be at work on its requests
//   gone       its doorbells, its place in the roster and what it had of the host's are given back
//
// An ejection that nobody has asked for resets the function and leaves it where it is: what a
// machine has is its owner's to decide. A guest may eject at any rate: what it says is gathered in
// one word, and looked at by one call at a time on the event loop's thread.
//
// Threads: any. Lock order: the one here, the roster's, a device's.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "devices/device_ref.h"
#include "devices/irq.h"
#include "devices/pci/hotplug.h"
#include "vmm/machine.h"
#include "vmm/unplug.h"
#include "vmm/virtio_devices.h"

namespace vmm {

class HotPlug : public std::enable_shared_from_this<HotPlug> {
 public:
  using Done = std::future<Result<void>>;
  // For how long the host's own work on a device that has left is waited for.
  static constexpr std::chrono::seconds kHostPatience{10};

  // When the machine has all the devices that it starts with. `machine` is borrowed, and what this
  // leaves with the event loop may outlive it.
  static Result<std::shared_ptr<HotPlug>> create(Machine& machine, std::size_t spare_slots);
  // Whoever waits for a device to go is told that the machine has ended.
  ~HotPlug();
  HotPlug(const HotPlug&) = delete;
  HotPlug& operator=(const HotPlug&) = delete;

  // Puts the device into a free slot, and tells the guest. Errors: kResource without one; the
  // host's.
  Result<void> plug(VirtioParts parts);
  // Ready when the device has gone, or stays. Errors: kBadState when it is already on its way;
  // kTimeout when guest or host did not let go of it in time; kCancelled when the machine has ended
  // before. The caller has seen to it that there is a device with this name on PCI.
  Done unplug(std::string_view name, const Unplug& how);
  // Whether a device has come or been asked to go: the machine is not the one that its
  // configuration says any more.
  bool used() const noexcept { return used_; }

 private:
  enum class Step : std::uint8_t { kStays, kAsked, kLeaving };
  struct Slot {
    Step step = Step::kStays;
    std::string name = {};
    bool force = false;
    std::uint64_t turn = 0;  // of this slot: a deadline of an earlier one has no meaning
    std::optional<std::promise<Result<void>>> done = {};
    std::chrono::steady_clock::time_point host_deadline{};
  };
  // The way from the registers to the general-purpose event.
  struct Event final : IrqPin {
    explicit Event(DeviceHandle<AcpiPm> chip) : pm(std::move(chip)) {}
    void set_level(bool asserted) override;
    DeviceHandle<AcpiPm> pm;
  };

  explicit HotPlug(Machine& machine);
  Result<void> add_registers();
  // From an exit.
  void on_eject(std::uint32_t slots);
  // On the event loop's thread.
  void serve_ejections();
  void eject(std::uint8_t slot);
  void on_deadline(std::uint8_t slot, std::uint64_t turn);
  // With mutex_ held.
  void leave(std::uint8_t slot);
  void look_after(std::uint8_t slot);
  void remove(std::uint8_t slot, const VirtioHandle& handle);
  void answer(Slot& slot, Result<void> result);
  std::optional<VirtioHandle> occupant(std::uint8_t slot) const;
  template <typename Fn>
  void registers(Fn&& fn) const;

  Machine& machine_;
  Event event_;
  std::optional<DeviceHandle<pci::Hotplug>> registers_;
  std::atomic<std::uint32_t> ejected_{0};
  std::atomic<bool> used_{false};
  std::mutex mutex_;  // guards the rest, and the machine's PciBus
  std::array<Slot, pci::Hotplug::kSlots> slots_;
};

}  // namespace vmm
