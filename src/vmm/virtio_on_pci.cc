#include "vmm/virtio_on_pci.h"

#include <utility>
#include <vector>

#include "devices/virtio/pci_transport.h"

namespace vmm {

void BarDoorbells::on_active(bool active) {
  std::lock_guard<std::mutex> lock(mutex_);
  active_ = active;
  settle();
}

void BarDoorbells::on_moved(std::optional<std::uint64_t> bar) {
  std::lock_guard<std::mutex> lock(mutex_);
  bar_ = bar;
  settle();
}

void BarDoorbells::settle() {
  using virtio::PciTransport;
  constexpr std::uint32_t kWidth = 2;  // 4.1.5.2: drivers write the queue's number, 16 bits
  std::vector<kvm::IoEvent> places;
  for (std::uint16_t queue = 0; active_ && bar_ && queue < queues_; ++queue) {
    const std::uint64_t at = PciTransport::kNotify + PciTransport::kNotifyStride * queue;
    places.push_back({.address = *bar_ + at, .width = kWidth});
  }
  bells_->place(std::move(places));
}

Result<PciBus::Seat> attach_virtio_pci(Machine& machine, VirtioParts parts) {
  using virtio::PciTransport;
  const PciBus::Seat seat = VMM_TRY(machine.pci->next_seat());
  const auto queues = static_cast<std::uint16_t>(parts.device->queue_sizes().size());
  auto made = machine.doorbells.add(queues, std::move(parts.sources), parts.queue_threads);
  if (!made) {
    machine.pci->free_seat(seat.device);
    return tl::unexpected<Error>(made.error());
  }
  const std::shared_ptr<Doorbells> bells = *std::move(made);
  const auto places = std::make_shared<BarDoorbells>(bells, queues);
  seat.port->watch(0, [places](std::optional<std::uint64_t> bar) { places->on_moved(bar); });
  const auto function = make_device<PciTransport>(
      std::move(parts.device),
      PciTransport::Ports{.pci = seat.ports,
                          .memory = &machine.memory,
                          .ring = [bells](std::uint16_t queue) { bells->ring(queue); },
                          .on_active = [places](bool active) { places->on_active(active); },
                          .log = &machine.events});
  PciTransport* const transport = function.with([](PciTransport& t) { return &t; });
  bells->bind(
      function, [transport](std::uint16_t queue) { transport->process(queue); },
      polling_of(transport->core()));
  VMM_TRY(machine.pci->attach(seat, function));
  machine.add(VirtioHandle{function, &transport->device(), &transport->core(), seat.device, bells});
  if (parts.attached) parts.attached(function);
  return seat;
}

}  // namespace vmm
