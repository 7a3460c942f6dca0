#include "vmm/virtio_devices.h"

#include <sys/random.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <map>
#include <memory>
#include <string_view>
#include <utility>
#include <variant>

#include "base/unique_fd.h"
#include "devices/virtio/balloon.h"
#include "devices/virtio/blk.h"
#include "devices/virtio/console.h"
#include "devices/virtio/mem.h"
#include "devices/virtio/mmio_transport.h"
#include "devices/virtio/net.h"
#include "devices/virtio/pmem.h"
#include "devices/virtio/remote_kinds.h"
#include "devices/virtio/rng.h"
#include "devices/virtio/vsock.h"
#include "vmm/add_embedder_virtio.h"
#include "vmm/pmem_file.h"
#include "vmm/virtio_on_pci.h"
#include "vmm/x86/virtio_mmio.h"

namespace vmm {
namespace {

// The kernel's generator does not wait once it has been seeded, which it is long before a VMM runs.
void fill_with_random(std::span<std::byte> bytes) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n = ::getrandom(bytes.data() + done, bytes.size() - done, 0);
    if (n > 0) done += static_cast<std::size_t>(n);
    if (n < 0 && errno != EINTR) return;
  }
}

std::string numbered(const char* kind, std::size_t number) {
  return fmt::format("{}{}", kind, number);
}
std::string name_of(const std::string& chosen, const char* kind, std::size_t number) {
  return chosen.empty() ? numbered(kind, number) : chosen;
}

Result<VirtioParts> make(const VirtioRngConfig& config, Machine&, std::size_t number) {
  std::string name = numbered("rng", number);
  return VirtioParts{
      .device = config.seed ? std::make_unique<virtio::Rng>(std::move(name), *config.seed)
                            : std::make_unique<virtio::Rng>(std::move(name), fill_with_random)};
}

// A descriptor that is readable each time the period has passed.
Result<UniqueFd> periodic_timer(std::chrono::seconds period) {
  UniqueFd timer(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!timer) return fail_errno(errno, "Create a timer");
  const timespec time{.tv_sec = period.count(), .tv_nsec = 0};
  const itimerspec both{.it_interval = time, .it_value = time};
  if (::timerfd_settime(timer.get(), 0, &both, nullptr) != 0) {
    return fail_errno(errno, "Start a timer");
  }
  return timer;
}

Result<VirtioParts> make(const VirtioBalloonConfig& config, Machine&, std::size_t number) {
  using virtio::Balloon;
  auto device =
      std::make_unique<Balloon>(numbered("balloon", number),
                                Balloon::Options{.size = config.size,
                                                 .deflate_on_oom = config.deflate_on_oom,
                                                 .free_page_reporting = config.free_page_reporting,
                                                 .statistics = config.statistics.has_value()});
  Balloon& balloon = *device;  // lives as long as its doorbells are bound
  VirtioParts parts{.device = std::move(device)};
  if (config.statistics) {
    const auto timer =
        std::make_shared<const UniqueFd>(VMM_TRY(periodic_timer(*config.statistics)));
    parts.sources.push_back({timer->get(), [&balloon, timer] {
                               std::uint64_t periods = 0;
                               if (::read(timer->get(), &periods, sizeof periods) > 0) {
                                 balloon.request_stats();
                               }
                             }});
  }
  return parts;
}

Result<VirtioParts> make(const VirtioConsoleConfig& config, Machine& machine, std::size_t number) {
  using virtio::Console;
  std::vector<Console::Port> ports;
  for (const ConsolePortConfig& port : config.ports) {
    machine.console_ports.push_back(
        std::make_unique<ConsolePortEnd>(port.output, VMM_TRY(EventFd::create())));
    ConsolePortEnd& end = *machine.console_ports.back();
    ports.push_back({.name = port.name, .output = &end.output, .on_input_space = [&end] {
                       end.input_space.signal();
                     }});
  }
  return VirtioParts{.device =
                         std::make_unique<Console>(numbered("console", number), std::move(ports))};
}

// Both queues of a pair have the same thread. The control queue follows the last pair.
std::vector<std::uint32_t> threads_of_pairs(const std::vector<std::uint32_t>& threads,
                                            std::size_t pairs) {
  std::vector<std::uint32_t> all;
  if (threads.empty()) return all;
  for (std::size_t pair = 0; pair < pairs; ++pair) {
    all.insert(all.end(), 2, threads[pair % threads.size()]);
  }
  all.push_back(threads.front());
  return all;
}

Result<VirtioParts> make(const VirtioNetConfig& config, Machine&, std::size_t number) {
  std::vector<std::shared_ptr<NetBackend>> queues{config.backend};
  queues.insert(queues.end(), config.more_queues.begin(), config.more_queues.end());
  auto device =
      std::make_unique<virtio::Net>(name_of(config.name, "net", number), config.mac, queues);
  virtio::Net& net = *device;  // lives as long as its doorbells are bound
  VirtioParts parts{.device = std::move(device),
                    .queue_threads = threads_of_pairs(config.queue_threads, queues.size())};
  for (std::size_t pair = 0; pair < queues.size(); ++pair) {
    parts.sources.push_back({.fd = queues[pair]->ready_fd(),
                             .on_ready = [&net, pair] { net.backend_ready(pair); },
                             .queue = static_cast<std::uint16_t>(2 * pair)});
  }
  return parts;
}

Result<VirtioParts> make(const VirtioVsockConfig& config, Machine&, std::size_t number) {
  using virtio::Vsock;
  auto device = std::make_unique<Vsock>(numbered("vsock", number), config.cid, config.backend);
  Vsock& vsock = *device;  // lives as long as its doorbells are bound
  VirtioParts parts{.device = std::move(device)};
  parts.sources.push_back({config.backend->ready_fd(), [&vsock] { vsock.backend_ready(); }});
  return parts;
}

Result<VirtioParts> make(const VirtioPmemConfig& config, Machine& machine, std::size_t number) {
  using virtio::Pmem;
  // guest_ram.cc has put the files' regions in the order of their devices.
  const GuestRegion* const region = machine.memory.region(RegionKind::kFile, number);
  if (region == nullptr) return fail(ErrorCode::kBadConfig, "pmem{} has no memory", number);
  auto device = std::make_unique<Pmem>(numbered("pmem", number), region->range(), config.file);
  Pmem& pmem = *device;  // lives as long as its doorbells are bound
  machine.pmem_files.push_back(config.file);
  VirtioParts parts{.device = std::move(device)};
  parts.sources.push_back({config.file->event_fd(), [&pmem] { pmem.completed(); }});
  return parts;
}

Result<VirtioParts> make(const VirtioMemConfig& config, Machine& machine, std::size_t number) {
  const GuestRegion* const region = machine.memory.region(RegionKind::kBlocks, number);
  if (region == nullptr) return fail(ErrorCode::kBadConfig, "There is no memory to plug");
  const std::uint64_t start = machine.memory.size();
  const std::uint64_t wanted = config.size == 0 ? 0 : config.size - start;
  return VirtioParts{.device = std::make_unique<virtio::Mem>(numbered("mem", number),
                                                             region->range().base(),
                                                             *region->blocks(), wanted)};
}

Result<VirtioParts> make(const VirtioDiskConfig& config, Machine&, std::size_t number) {
  using virtio::Blk;
  auto device = std::make_unique<Blk>(
      name_of(config.name, "disk", number),
      Blk::Options{.backend = config.backend, .serial = config.serial, .queues = config.queues});
  Blk& blk = *device;  // lives as long as its doorbells are bound
  VirtioParts parts{.device = std::move(device), .queue_threads = config.queue_threads};
  parts.sources.push_back({config.backend->event_fd(), [&blk] { blk.completed(); }});
  return parts;
}

// Has the device called when its peer has something to say.
template <typename D>
VirtioParts remote_parts(std::unique_ptr<D> device, std::shared_ptr<virtio::RemotePeer> peer) {
  D& remote = *device;  // lives as long as its doorbells are bound
  VirtioParts parts{.device = std::move(device)};
  const int fd = peer->ready_fd();
  parts.sources.push_back({fd, [&remote, peer = std::move(peer)] { remote.peer_ready(); }});
  return parts;
}

Result<VirtioParts> make(const VhostDiskConfig& config, Machine&, std::size_t number) {
  using virtio::RemoteBlk;
  return remote_parts(std::make_unique<RemoteBlk>(name_of(config.name, "disk", number),
                                                  RemoteBlk::Setup{.peer = config.peer,
                                                                   .queues = config.queues,
                                                                   .reconnect = config.reconnect}),
                      config.peer);
}

Result<VirtioParts> make(const VhostNetConfig& config, Machine&, std::size_t number) {
  return remote_parts(std::make_unique<virtio::RemoteNet>(name_of(config.name, "net", number),
                                                          config.peer, config.mac),
                      config.peer);
}

Result<VirtioParts> make(const VhostShareConfig& config, Machine&, std::size_t number) {
  return remote_parts(
      std::make_unique<virtio::RemoteFs>(numbered("fs", number), config.peer, config.tag),
      config.peer);
}

Result<VirtioParts> make(const VirtioOwnConfig& config, Machine& machine, std::size_t number) {
  return make_embedder_virtio(config, name_of(config.name, "own", number), machine);
}

// Devices of a kind are numbered together, whoever serves them: those with the same name here.
struct KindName {
  const char* operator()(const VirtioRngConfig&) const { return "rng"; }
  const char* operator()(const VirtioDiskConfig&) const { return "disk"; }
  const char* operator()(const VirtioNetConfig&) const { return "net"; }
  const char* operator()(const VirtioBalloonConfig&) const { return "balloon"; }
  const char* operator()(const VirtioVsockConfig&) const { return "vsock"; }
  const char* operator()(const VhostDiskConfig&) const { return "disk"; }
  const char* operator()(const VhostNetConfig&) const { return "net"; }
  const char* operator()(const VhostShareConfig&) const { return "fs"; }
  const char* operator()(const VirtioConsoleConfig&) const { return "console"; }
  const char* operator()(const VirtioPmemConfig&) const { return "pmem"; }
  const char* operator()(const VirtioMemConfig&) const { return "mem"; }
  const char* operator()(const VirtioOwnConfig&) const { return "own"; }
};

}  // namespace

Result<VirtioParts> make_virtio_device(const VirtioConfig& config, Machine& machine,
                                       std::size_t number) {
  return std::visit([&](const auto& device) { return make(device, machine, number); }, config);
}

QueuePolling polling_of(virtio::TransportCore& core) {
  return {.begin = [&core](std::uint16_t queue) { return core.begin_polling(queue); },
          .poll = [&core](std::uint16_t queue) { return core.poll(queue); },
          .end = [&core](std::uint16_t queue) { core.end_polling(queue); }};
}

Result<void> attach_virtio_mmio(Machine& machine, std::size_t index, VirtioParts parts) {
  using virtio::MmioTransport;
  if (index >= x86::kVirtioMmioSlots) {
    return fail(ErrorCode::kBadConfig, "There is room for {} virtio-mmio devices at most",
                x86::kVirtioMmioSlots);
  }
  const x86::VirtioMmioSlot slot = x86::virtio_mmio_slot(index);
  const auto queues = static_cast<std::uint16_t>(parts.device->queue_sizes().size());
  const std::shared_ptr<Doorbells> bells =
      VMM_TRY(machine.doorbells.add(queues, std::move(parts.sources), parts.queue_threads));
  std::vector<kvm::IoEvent> places;
  for (std::uint16_t queue = 0; queue < queues; ++queue) {
    places.push_back({.address = slot.base.value + MmioTransport::kQueueNotify,
                      .width = 4,
                      .match = std::uint64_t{queue}});
  }
  const auto device = make_device<MmioTransport>(
      std::move(parts.device),
      MmioTransport::Ports{.memory = &machine.memory,
                           .irq = machine.irqs.line(slot.gsi),
                           .ring = [bells](std::uint16_t queue) { bells->ring(queue); },
                           .on_active =
                               [bells, places](bool active) {
                                 bells->place(active ? places : std::vector<kvm::IoEvent>());
                               },
                           .log = &machine.events});
  MmioTransport* const transport = device.with([](MmioTransport& t) { return &t; });
  bells->bind(
      device, [transport](std::uint16_t queue) { transport->process(queue); },
      polling_of(transport->core()));
  VMM_TRY(machine.mmio.insert({slot.base.value, MmioTransport::kRegistersSize, Widths{4}}, device));
  VMM_TRY(machine.mmio.insert({slot.base.value + MmioTransport::kConfig, MmioTransport::kConfigSize,
                               Widths::any(), MmioTransport::kConfig},
                              device));
  machine.add(VirtioHandle{.outside = device,
                           .inside = &transport->device(),
                           .core = &transport->core(),
                           .bells = bells});
  machine.virtio_mmio.push_back(slot);
  if (parts.attached) parts.attached(device);
  return {};
}

Result<void> add_virtio_devices(const VmConfig& config, Machine& machine) {
  std::map<std::string_view, std::size_t> numbers;  // of each kind
  for (std::size_t index = 0; index < config.virtio.size(); ++index) {
    const VirtioConfig& one = config.virtio[index];
    const std::size_t number = numbers[std::visit(KindName(), one)]++;
    VirtioParts parts = VMM_TRY(make_virtio_device(one, machine, number));
    if (config.virtio_transport == VirtioTransport::kPci) {
      VMM_TRY(attach_virtio_pci(machine, std::move(parts)));
    } else {
      VMM_TRY(attach_virtio_mmio(machine, index, std::move(parts)));
    }
  }
  return {};
}

}  // namespace vmm
