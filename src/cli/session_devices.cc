// The host's side of the machine's devices: opened before the guest is made.
#include <fmt/format.h>

#include <cstdlib>
#include <fstream>
#include <utility>

#include "cli/net_option.h"
#include "cli/run_session.h"
#include "vmm/vhost/open_vhost.h"
#include "vmm/vsock/open_vsock.h"

namespace vmm::cli {

// What tells this machine from others, each time it is started: its UUID, or host and boot image.
std::string RunSession::identity() const {
  const VmConfig& config = request_.config;
  if (config.uuid != decltype(config.uuid){}) {
    std::string text;
    for (const auto byte : config.uuid) text += fmt::format("{:02x}", byte);
    return text;
  }
  std::string host;
  std::getline(std::ifstream("/etc/machine-id"), host);
  const auto* const kernel = std::get_if<KernelBoot>(&config.boot);
  return host + "\n" + (kernel != nullptr ? kernel->kernel.string() : std::string());
}

template <typename Config>
std::vector<Config*> RunSession::devices_of_snapshot() {
  std::vector<Config*> found;
  for (VirtioConfig& device : request_.config.virtio) {
    if (auto* const one = std::get_if<Config>(&device)) found.push_back(one);
  }
  return found;
}

// The machine is the snapshot's; what is the host's is given anew.
Result<void> RunSession::open_snapshot() {
  if (!request_.snapshot_file) return {};
  const auto snapshot = VMM_TRY(Snapshot::open(*request_.snapshot_file));
  VmConfig config = Snapshot::config(snapshot);
  if (const RestoreMemory& how = request_.restore_memory; how.faulted) {
    FaultedMemory faulted;
    if (!how.prefetch.empty()) {
      faulted.prefetch = VMM_TRY(PageList::read(how.prefetch));
      VMM_TRY(with_context(faulted.prefetch->check_fits(*snapshot), how.prefetch));
    }
    config.boot = SnapshotBoot{.snapshot = snapshot, .faulted = std::move(faulted)};
  }
  config.recorded_exits = request_.config.recorded_exits;
  config.io_threads = request_.config.io_threads;
  config.quirks = std::move(request_.config.quirks);
  if (request_.config.irqchip != IrqchipMode::kAuto) config.irqchip = request_.config.irqchip;
  config.early_kvm = std::move(request_.config.early_kvm);
  request_.config = std::move(config);
  const auto expect = [](std::size_t has, std::size_t given, const char* what,
                         const char* option) -> Result<void> {
    if (has == given) return {};
    return fail(ErrorCode::kBadConfig,
                "The snapshot's machine has {} {}, and {} are given: say with {} what the host has "
                "for each, in the same order",
                has, what, given, option);
  };
  VMM_TRY(expect(devices_of_snapshot<VirtioDiskConfig>().size(), request_.disks.size(), "disks",
                 "--disk"));
  VMM_TRY(expect(devices_of_snapshot<VirtioNetConfig>().size(), request_.networks.size(),
                 "network interfaces", "--net"));
  return expect(devices_of_snapshot<VirtioVsockConfig>().size(), request_.vsock ? 1 : 0,
                "vsock devices", "--vsock");
}

// A network for an interface that the snapshot's machine has.
Result<void> RunSession::give_network(std::size_t number, const NetworkSpec& spec) {
  if (std::holds_alternative<VhostNetwork>(spec.where)) {
    return fail(ErrorCode::kUnsupported, "a snapshot's interface cannot be given to vhost-user");
  }
  auto queues = VMM_TRY(open_network(spec));
  VirtioNetConfig& net = *devices_of_snapshot<VirtioNetConfig>()[number];
  if (queues.size() != net.more_queues.size() + 1) {
    return fail(ErrorCode::kBadConfig, "the snapshot's interface has {} pairs of queues, not {}",
                net.more_queues.size() + 1, queues.size());
  }
  net.backend = std::move(queues.front());
  for (std::size_t i = 1; i < queues.size(); ++i) net.more_queues[i - 1] = std::move(queues[i]);
  net.queue_threads = io_threads_for(spec.io_threads);
  return {};
}

// An image for a disk that the snapshot's machine has.
Result<void> RunSession::give_disk(std::size_t number, const DiskSpec& disk,
                                   std::span<const std::shared_ptr<BlockBackend>> opened) {
  if (opened.size() != request_.disks.size()) {
    return fail(ErrorCode::kUnsupported,
                "A snapshot's disk cannot be given to vhost-user (--disk vhost-user-blk=)");
  }
  VirtioDiskConfig& config = *devices_of_snapshot<VirtioDiskConfig>()[number];
  config.backend = opened[number];
  config.queue_threads = io_threads_for(disk.io_threads);
  return {};
}

Result<void> RunSession::open_networks() {
  const std::string machine = request_.networks.empty() ? std::string() : identity();
  for (std::size_t i = 0; i < request_.networks.size(); ++i) {
    const NetworkSpec& spec = request_.networks[i];
    const MacAddress mac = spec.mac.value_or(default_mac(machine, spec, i));
    const std::string opening = fmt::format("Open network interface {} (--net)", i);
    if (request_.snapshot_file) {
      VMM_TRY(with_context(give_network(i, spec), opening));
      continue;
    }
    if (request_.verbose) note(fmt::format("network interface {} is {}", i, mac.text()));
    if (const auto* const vhost = std::get_if<VhostNetwork>(&spec.where)) {
      auto peer = VMM_TRY(with_context(open_vhost_net(vhost->socket, make_log()), opening));
      request_.config.virtio.emplace_back(
          VhostNetConfig{mac, std::move(peer), fmt::format("net{}", i)});
    } else {
      const auto queues = VMM_TRY(with_context(open_network(spec), opening));
      VirtioNetConfig net = net_config(fmt::format("net{}", i), mac, queues);
      net.queue_threads = io_threads_for(spec.io_threads);
      request_.config.virtio.emplace_back(std::move(net));
    }
  }
  return {};
}

Result<void> RunSession::open_vsock() {
  if (!request_.vsock) return {};
  auto backend = VMM_TRY(
      with_context(vmm::open_vsock(request_.vsock->path), "Open the guest's socket (--vsock)"));
  if (request_.snapshot_file) {
    devices_of_snapshot<VirtioVsockConfig>().front()->backend = std::move(backend);
    return {};
  }
  request_.config.virtio.emplace_back(VirtioVsockConfig{request_.vsock->cid, std::move(backend)});
  return {};
}

Result<void> RunSession::open_shares() {
  for (const ShareSpec& share : request_.shares) {
    auto opened = share.socket.empty()
                      ? share_directory(share.directory, share.read_only, make_log())
                      : open_vhost_share(share.socket, make_log());
    auto peer = VMM_TRY(with_context(
        std::move(opened), fmt::format("Share '{}' with the guest (--share)", share.tag)));
    request_.config.virtio.emplace_back(VhostShareConfig{share.tag, std::move(peer)});
  }
  return {};
}

DiskImage RunSession::image_of(const DiskSpec& disk) const {
  DiskImage image = disk.image;
  const char* const scratch = std::getenv("TMPDIR");
  if (scratch != nullptr && *scratch != '\0') image.scratch_directory = scratch;
  return image;
}

// Once for all machines: a reset changes nothing about the disks, and those that will be thrown
// away keep what they hold.
Result<void> RunSession::open_disks() {
  std::vector<DiskImage> images;
  for (const DiskSpec& disk : request_.disks) {
    if (disk.vhost_socket.empty()) images.push_back(image_of(disk));
  }
  const auto opened =
      VMM_TRY(with_context(vmm::open_disks(images, make_log()), "Open the disks (--disk)"));
  auto backend = opened.begin();
  for (std::size_t i = 0; i < request_.disks.size(); ++i) {
    DiskSpec& disk = request_.disks[i];
    disk.name = fmt::format("disk{}", i);
    if (request_.snapshot_file) {
      VMM_TRY(give_disk(i, disk, opened));
    } else if (disk.vhost_socket.empty()) {
      request_.config.virtio.emplace_back(
          VirtioDiskConfig{.name = disk.name,
                           .backend = *backend++,
                           .serial = disk.serial,
                           .queues = disk.queues,
                           .queue_threads = io_threads_for(disk.io_threads)});
    } else {
      auto peer =
          VMM_TRY(with_context(open_vhost_disk(disk.vhost_socket, disk.queues, make_log()),
                               "Open the disk of another process (--disk vhost-user-blk=)"));
      request_.config.virtio.emplace_back(VhostDiskConfig{.peer = std::move(peer),
                                                          .queues = disk.queues,
                                                          .reconnect = disk.reconnect,
                                                          .name = disk.name});
    }
  }
  return {};
}

// Once for all machines, as with disks: writes that are to be discarded stay across resets.
Result<void> RunSession::open_pmem() {
  for (const PmemSpec& spec : request_.pmem) {
    auto file = VMM_TRY(
        with_context(vmm::open_pmem(spec, make_log()), "Open a persistent memory (--pmem)"));
    request_.config.virtio.emplace_back(VirtioPmemConfig{.file = std::move(file)});
  }
  return {};
}

// Those that were chosen, or the next one in turn for all queues.
std::vector<std::uint32_t> RunSession::io_threads_for(std::vector<std::uint32_t> chosen) {
  const std::uint32_t threads = request_.config.io_threads;
  if (!chosen.empty() || threads == 0) return chosen;
  return {1 + next_io_thread_++ % threads};
}

}  // namespace vmm::cli
