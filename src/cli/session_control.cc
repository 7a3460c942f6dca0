#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <future>

#include "cli/net_option.h"
#include "cli/option_values.h"
#include "cli/run_session.h"
#include "vmm/block/open_disk.h"

namespace vmm::cli {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// A machine answers between two instructions, or comes back from a reset.
constexpr std::chrono::seconds kPauseTimeout{15};
constexpr std::uint64_t kMostDevices = 1000;  // more than any machine has

}  // namespace

Result<void> RunSession::open_control() {
  if (!request_.control) return {};
  control_ = VMM_TRY(with_context(
      LineServer::create(*request_.control,
                         [this](std::string_view line) { return answer_control(line, *this); },
                         {.too_long = control_too_long()}),
      "Open the control socket (--control)"));
  return {};
}

void RunSession::stay_paused(std::unique_lock<std::mutex>& lock) {
  paused_ = true;
  if (gdb_) gdb_->guest_paused(true);
  changed_.notify_all();
  const auto over = [this] { return !pause_wanted_ || quit_ || has_wishes(); };
  if (end_time_) {
    if (!changed_.wait_until(lock, *end_time_, over)) pause_wanted_ = false;
  } else {
    changed_.wait(lock, over);
  }
  paused_ = false;
  if (gdb_) gdb_->guest_paused(false);
}

Result<Vm*> RunSession::machine() const {
  if (vm_ != nullptr) return vm_;
  return fail(ErrorCode::kTimeout, "The machine is being started: ask again");
}

ControlStatus RunSession::control_status() {
  const std::lock_guard guard(mutex_);
  ControlStatus status{
      .state = vm_ == nullptr             ? "starting"
               : paused_ && pause_wanted_ ? "paused"
               : keeps_crashed_           ? "crashed"
               : gdb_ && gdb_->holds()    ? "held"
                                          : "running",
      .uptime = std::chrono::duration_cast<milliseconds>(steady_clock::now() - begin_),
      .resets = resets_};
  if (vm_ == nullptr) return status;
  status.vm = vm_->status();
  if (status.vm->asleep && status.state == "running") status.state = "asleep";
  status.stats = vm_->stats();
  return status;
}

Result<void> RunSession::control_pause() {
  std::unique_lock lock(mutex_);
  pause_wanted_ = true;
  if (!paused_ && vm_ != nullptr) vm_->cancel();
  changed_.wait_for(lock, kPauseTimeout, [this] { return paused_ || quit_; });
  if (paused_) return {};
  pause_wanted_ = false;
  return fail(ErrorCode::kTimeout, "The guest did not stop");
}

Result<void> RunSession::control_resume() {
  const std::lock_guard guard(mutex_);
  pause_wanted_ = false;
  changed_.notify_all();
  return {};
}

Result<void> RunSession::control_quit() {
  const std::lock_guard guard(mutex_);
  ask_to_quit("over the control socket");
  return {};
}

Result<void> RunSession::control_power_button() {
  const std::lock_guard guard(mutex_);
  VMM_TRY(machine())->press_power_button();
  return {};
}

Result<void> RunSession::control_balloon(std::uint64_t bytes) {
  const std::lock_guard guard(mutex_);
  Vm* const vm = VMM_TRY(machine());
  VMM_TRY(vm->set_balloon(bytes));
  // For the machine after a reset.
  for (VirtioConfig& device : request_.config.virtio) {
    if (auto* const balloon = std::get_if<VirtioBalloonConfig>(&device)) balloon->size = bytes;
  }
  return {};
}

Result<void> RunSession::control_memory(std::uint64_t bytes) {
  const std::lock_guard guard(mutex_);
  Vm* const vm = VMM_TRY(machine());
  VMM_TRY(vm->set_memory(bytes));
  // For the machine after a reset.
  for (VirtioConfig& device : request_.config.virtio) {
    if (auto* const memory = std::get_if<VirtioMemConfig>(&device)) memory->size = bytes;
  }
  return {};
}

Result<std::uint64_t> RunSession::control_resize(const std::string& disk,
                                                 std::optional<std::uint64_t> bytes) {
  const std::lock_guard guard(mutex_);
  Vm* const vm = VMM_TRY(machine());
  if (bytes) {
    for (const DiskSpec& one : request_.disks) {
      if (one.name == disk && one.vhost_socket.empty()) VMM_TRY(grow_image(one.image, *bytes));
    }
  }
  return vm->refresh_disk(disk);
}

// The limits are the disk's, which outlives the machine.
Result<void> RunSession::control_limit(const std::string& disk, const BlockRates& rates) {
  const std::lock_guard guard(mutex_);
  Vm* const vm = VMM_TRY(machine());
  return vm->limit_disk(disk, rates);
}

Result<std::string> RunSession::control_gdb(const std::string& address) {
  const debug::ServerAddress where = VMM_TRY(debug::parse_address(address));
  if (std::holds_alternative<debug::StdioAddress>(where)) {
    return fail(ErrorCode::kBadConfig, "the standard streams are taken: use unix:PATH");
  }
  return gdb_->listen(where);
}

Result<void> RunSession::control_snapshot(const std::string& file, const std::string& base) {
  return write_file({.file = file, .base = base});
}

Result<void> RunSession::control_core(const std::string& file) {
  return write_file({.file = file, .core = true});
}

Result<void> RunSession::write_file(SnapshotWish wanted) {
  std::unique_lock lock(mutex_);
  Vm* const vm = VMM_TRY(machine());
  const auto wish = std::make_shared<SnapshotWish>(std::move(wanted));
  snapshot_wish_ = wish;
  vm->cancel();
  changed_.notify_all();
  changed_.wait(lock, [&] { return wish->outcome || quit_ || vm_ != vm; });
  if (snapshot_wish_ == wish) snapshot_wish_.reset();
  if (wish->frozen) {
    lock.unlock();
    return wish->frozen->write(wish->file, [this] { return quit_.load(); });
  }
  if (wish->outcome) return *wish->outcome;
  return fail(ErrorCode::kCancelled, "The guest ended before it was written");
}

namespace {

// The guest stands only until it is frozen, where that can be; else until the core file is there.
Result<std::unique_ptr<FrozenCore>> freeze_or_write_core(Vm& vm, const std::string& file,
                                                         const std::function<bool()>& given_up,
                                                         const Log& log) {
  auto frozen = vm.freeze_core();
  if (frozen) return frozen;
  log(LogLevel::kInfo, "core", "The guest stands while its core file is written: {}",
      frozen.error().message());
  VMM_TRY(vm.write_core(file, given_up));
  return std::unique_ptr<FrozenCore>();
}

}  // namespace

void RunSession::serve_snapshot(Vm& vm, std::unique_lock<std::mutex>& lock) {
  const auto wish = snapshot_wish_;
  lock.unlock();
  // Whoever wants to end the guest does not wait for the disk.
  const auto given_up = [this] { return quit_.load(); };
  Result<void> outcome;
  std::unique_ptr<FrozenCore> frozen;
  if (wish->core) {
    auto done = freeze_or_write_core(vm, wish->file, given_up, make_log());
    if (done)
      frozen = *std::move(done);
    else
      outcome = tl::unexpected<Error>(std::move(done).error());
  } else {
    outcome = wish->base.empty() ? vm.save(wish->file, given_up)
                                 : vm.save_increment(wish->file, wish->base, given_up);
  }
  lock.lock();
  wish->outcome = std::move(outcome);
  wish->frozen = std::move(frozen);
  snapshot_wish_.reset();
  changed_.notify_all();
}

Result<void> RunSession::control_link(const std::string& net, bool up) {
  const std::lock_guard guard(mutex_);
  Vm* const vm = VMM_TRY(machine());
  VMM_TRY(vm->set_link(net, up));
  if (up) {
    links_down_.erase(net);
  } else {
    links_down_.insert(net);
  }
  return {};
}

namespace {

const std::string* name_of(const VirtioConfig& device) {
  if (const auto* const disk = std::get_if<VirtioDiskConfig>(&device)) return &disk->name;
  if (const auto* const net = std::get_if<VirtioNetConfig>(&device)) return &net->name;
  if (const auto* const disk = std::get_if<VhostDiskConfig>(&device)) return &disk->name;
  if (const auto* const net = std::get_if<VhostNetConfig>(&device)) return &net->name;
  return nullptr;
}

tl::unexpected<Error> not_while_running() {
  return fail(ErrorCode::kUnsupported,
              "a vhost-user device cannot be plugged in: give it to vmm run");
}

}  // namespace

// Of all devices that a machine after a reset will have.
std::string RunSession::free_name(std::string_view kind) const {
  const auto& devices = request_.config.virtio;
  for (std::size_t number = 0;; ++number) {
    std::string name = fmt::format("{}{}", kind, number);
    const bool taken = std::any_of(devices.begin(), devices.end(), [&](const VirtioConfig& one) {
      const std::string* const other = name_of(one);
      return other != nullptr && *other == name;
    });
    if (!taken) return name;
  }
}

void RunSession::forget(const std::string& device) {
  auto& devices = request_.config.virtio;
  devices.erase(std::remove_if(devices.begin(), devices.end(),
                               [&](const VirtioConfig& one) {
                                 const std::string* const name = name_of(one);
                                 return name != nullptr && *name == device;
                               }),
                devices.end());
  auto& disks = request_.disks;
  disks.erase(std::remove_if(disks.begin(), disks.end(),
                             [&](const DiskSpec& disk) { return disk.name == device; }),
              disks.end());
  links_down_.erase(device);
}

// The host's side is opened with no lock held: it may take a while.
Result<std::string> RunSession::control_add_disk(const std::string& options) {
  DiskSpec disk = VMM_TRY(parse_disk(options));
  if (!disk.vhost_socket.empty()) return not_while_running();
  const std::array images{image_of(disk)};
  const auto opened = VMM_TRY(vmm::open_disks(images, make_log()));
  const std::lock_guard guard(mutex_);
  Vm* const vm = VMM_TRY(machine());
  disk.name = free_name("disk");
  const VirtioDiskConfig config{.name = disk.name,
                                .backend = opened.front(),
                                .serial = disk.serial,
                                .queues = disk.queues,
                                .queue_threads = io_threads_for(disk.io_threads)};
  std::string name = VMM_TRY(vm->add_disk(config));
  // For the machine after a reset.
  request_.config.virtio.emplace_back(config);
  request_.disks.push_back(std::move(disk));
  return name;
}

Result<std::string> RunSession::control_add_net(const std::string& options) {
  const NetworkSpec spec = VMM_TRY(parse_net(options));
  if (std::holds_alternative<VhostNetwork>(spec.where)) return not_while_running();
  const auto queues = VMM_TRY(open_network(spec));
  const std::lock_guard guard(mutex_);
  Vm* const vm = VMM_TRY(machine());
  const std::string free = free_name("net");
  const auto number = parse_number(std::string_view(free).substr(3), kMostDevices);
  const MacAddress mac = spec.mac.value_or(
      default_mac(identity(), spec, static_cast<std::size_t>(number.value_or(0))));
  VirtioNetConfig config = net_config(free, mac, queues);
  config.queue_threads = io_threads_for(spec.io_threads);
  std::string name = VMM_TRY(vm->add_net(config));
  request_.config.virtio.emplace_back(std::move(config));
  return name;
}

Result<void> RunSession::control_remove_disk(const std::string& disk, bool force) {
  return remove_device(disk, [&](Vm& vm) { return vm.remove_disk(disk, {.force = force}); });
}

Result<void> RunSession::control_remove_net(const std::string& net, bool force) {
  return remove_device(net, [&](Vm& vm) { return vm.remove_net(net, {.force = force}); });
}

// The guest is waited for with no lock held; a machine that ends meanwhile says so.
template <typename Fn>
Result<void> RunSession::remove_device(const std::string& device, Fn&& ask) {
  std::future<Result<void>> gone;
  {
    const std::lock_guard guard(mutex_);
    Vm* const vm = VMM_TRY(machine());
    if (paused_) {
      return fail(ErrorCode::kBadState, "A guest that is paused cannot let go of {}", device);
    }
    gone = ask(*vm);
  }
  VMM_TRY(gone.get());
  const std::lock_guard guard(mutex_);
  forget(device);
  return {};
}

}  // namespace vmm::cli
