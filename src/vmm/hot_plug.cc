#include "vmm/hot_plug.h"

#include <algorithm>
#include <utility>

#include "devices/virtio/device.h"
#include "devices/virtio/transport_core.h"
#include "vmm/virtio_on_pci.h"

namespace vmm {
namespace {

using std::chrono::steady_clock;

// How often a device that has left is looked at, whether the host has finished with it.
constexpr std::chrono::milliseconds kLook{5};

}  // namespace

void HotPlug::Event::set_level(bool asserted) {
  pm.with([&](AcpiPm& chip) { chip.set_gpe(pci::Hotplug::kGpe, asserted); });
}

HotPlug::HotPlug(Machine& machine) : machine_(machine), event_(*machine.acpi_pm) {}

HotPlug::~HotPlug() {
  for (Slot& slot : slots_) {
    answer(slot, fail(ErrorCode::kCancelled, "The machine has ended"));
  }
}

Result<std::shared_ptr<HotPlug>> HotPlug::create(Machine& machine, std::size_t spare_slots) {
  std::shared_ptr<HotPlug> plug(new HotPlug(machine));
  machine.pci->open_slots(spare_slots);
  if (machine.pci->hotplug_slots() != 0) VMM_TRY(plug->add_registers());
  return plug;
}

Result<void> HotPlug::add_registers() {
  using pci::Hotplug;
  registers_ = make_device<Hotplug>(
      "pci_hotplug", Hotplug::Ports{.event = IrqLine(&event_),
                                    .on_eject = [weak = weak_from_this()](std::uint32_t slots) {
                                      if (const auto self = weak.lock()) self->on_eject(slots);
                                    }});
  VMM_TRY(machine_.pio.insert({Hotplug::kPort, Hotplug::kSize, Widths{4}}, *registers_));
  machine_.add(*registers_);
  return {};
}

template <typename Fn>
void HotPlug::registers(Fn&& fn) const {
  if (registers_) registers_->with(std::forward<Fn>(fn));
}

Result<void> HotPlug::plug(VirtioParts parts) {
  if (!registers_) {
    return fail(
        ErrorCode::kResource,
        "The machine has no slots for devices to come: start it with some (--hotplug-slots)");
  }
  used_ = true;
  std::lock_guard<std::mutex> lock(mutex_);
  const PciBus::Seat seat = VMM_TRY(attach_virtio_pci(machine_, std::move(parts)));
  if (const auto handle = occupant(seat.device)) {
    if (auto started = machine_.doorbells.start_new(*handle->bells); !started) {
      leave(seat.device);
      return started;
    }
  }
  registers([&](pci::Hotplug& hotplug) { hotplug.announce_added(seat.device); });
  return {};
}

HotPlug::Done HotPlug::unplug(std::string_view name, const Unplug& how) {
  used_ = true;
  std::lock_guard<std::mutex> lock(mutex_);
  std::promise<Result<void>> promise;
  Done done = promise.get_future();
  const auto number = machine_.roster.with([&](const Roster& roster) -> std::uint8_t {
    const auto found =
        std::find_if(roster.virtio.begin(), roster.virtio.end(),
                     [&](const VirtioHandle& handle) { return handle.outside.id() == name; });
    return found != roster.virtio.end() ? found->slot : std::uint8_t{0};
  });
  Slot& slot = slots_[number];
  if (number == 0) {
    promise.set_value(fail(ErrorCode::kOutOfRange, "{} is in no PCI slot", name));
  } else if (slot.step != Step::kStays) {
    promise.set_value(fail(ErrorCode::kBadState, "{} is already being taken out", name));
  } else {
    slot.step = Step::kAsked;
    slot.name = name;
    slot.force = how.force;
    slot.done = std::move(promise);
    const std::uint64_t turn = ++slot.turn;
    registers([&](pci::Hotplug& hotplug) { hotplug.announce_leaving(number); });
    machine_.loop.call_at(steady_clock::now() + how.patience,
                          [weak = weak_from_this(), number, turn] {
                            if (const auto self = weak.lock()) self->on_deadline(number, turn);
                          });
  }
  return done;
}

// One posted call at most, however fast the guest is.
void HotPlug::on_eject(std::uint32_t slots) {
  if (ejected_.fetch_or(slots) != 0) return;
  machine_.loop.post([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->serve_ejections();
  });
}

void HotPlug::serve_ejections() {
  const std::uint32_t slots = ejected_.exchange(0);
  for (std::uint8_t slot = 1; slot < pci::Hotplug::kSlots; ++slot) {
    if ((slots >> slot & 1) != 0) eject(slot);
  }
}

void HotPlug::eject(std::uint8_t slot) {
  std::lock_guard<std::mutex> lock(mutex_);
  switch (slots_[slot].step) {
    case Step::kAsked:
      return leave(slot);
    case Step::kLeaving:
      return;
    case Step::kStays:
      break;
  }
  if (const auto handle = occupant(slot)) handle->outside.with([](Device& d) { d.reset(); });
}

void HotPlug::on_deadline(std::uint8_t number, std::uint64_t turn) {
  std::lock_guard<std::mutex> lock(mutex_);
  Slot& slot = slots_[number];
  if (slot.step != Step::kAsked || slot.turn != turn) return;
  if (slot.force) return leave(number);
  slot.step = Step::kStays;
  registers([&](pci::Hotplug& hotplug) { hotplug.withdraw(number); });
  answer(slot, fail(ErrorCode::kTimeout,
                    "The guest did not let go of {} in time: it does not know hot-plugging, is "
                    "paused, or uses it; 'force' takes it away all the same",
                    slot.name));
}

void HotPlug::leave(std::uint8_t number) {
  const auto handle = occupant(number);
  if (!handle) return;
  Slot& slot = slots_[number];
  slot.step = Step::kLeaving;
  slot.host_deadline = steady_clock::now() + kHostPatience;
  registers([&](pci::Hotplug& hotplug) { hotplug.withdraw(number); });
  machine_.pci->detach(number, handle->outside);
  look_after(number);
}

// Its doorbells stay until the host has finished: they bring the news.
void HotPlug::look_after(std::uint8_t number) {
  const auto handle = occupant(number);
  if (!handle) return;
  Slot& slot = slots_[number];
  const bool busy = handle->outside.with([&](Device&) { return handle->core->resetting(); });
  if (!busy) return remove(number, *handle);
  if (steady_clock::now() >= slot.host_deadline) {
    answer(slot, fail(ErrorCode::kTimeout,
                      "{} is gone for the guest, but the host has not finished its requests: what "
                      "it uses is free when that is done",
                      slot.name));
  }
  machine_.loop.call_at(steady_clock::now() + kLook, [weak = weak_from_this(), number] {
    const auto self = weak.lock();
    if (!self) return;
    std::lock_guard<std::mutex> lock(self->mutex_);
    self->look_after(number);
  });
}

void HotPlug::remove(std::uint8_t number, const VirtioHandle& handle) {
  machine_.doorbells.remove(handle.bells);
  machine_.roster.with([&](Roster& roster) {
    const auto is_it = [&](const auto& outside) { return outside == handle.outside; };
    roster.devices.erase(std::remove_if(roster.devices.begin(), roster.devices.end(), is_it),
                         roster.devices.end());
    roster.virtio.erase(std::remove_if(roster.virtio.begin(), roster.virtio.end(),
                                       [&](const VirtioHandle& one) { return is_it(one.outside); }),
                        roster.virtio.end());
  });
  // Nobody finds it any more; the lock is for those who are still in it.
  handle.outside.with([&](Device&) { handle.inside->retire(); });
  machine_.pci->free_seat(number);
  slots_[number].step = Step::kStays;
  answer(slots_[number], {});
}

void HotPlug::answer(Slot& slot, Result<void> result) {
  if (!slot.done) return;
  slot.done->set_value(std::move(result));
  slot.done.reset();
}

std::optional<VirtioHandle> HotPlug::occupant(std::uint8_t slot) const {
  return machine_.roster.with([&](const Roster& roster) -> std::optional<VirtioHandle> {
    const auto found = std::find_if(roster.virtio.begin(), roster.virtio.end(),
                                    [&](const VirtioHandle& one) { return one.slot == slot; });
    return found != roster.virtio.end() ? std::optional(*found) : std::nullopt;
  });
}

}  // namespace vmm
