// From a driver's doorbell to the device's work on the event loop.
//
// Each queue has an eventfd. Whoever signals it, KVM on a guest's write or a device in an exit, the
// event loop that the queue belongs to calls what the doorbells were bound to. KVM is asked by the
// first queue's loop, when the device begins to work: until then, and on a KVM that refuses, the
// same write exits, and the exit does no more than signal.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/event_fd.h"
#include "base/result.h"
#include "devices/device_ref.h"
#include "vmm/event_loop.h"
#include "vmm/kvm/ioeventfd.h"

namespace vmm {

// How a device's queues are looked at without being rung for. On the thread of the queue's event
// loop, with the device's lock held.
struct QueuePolling {
  // The queue is looked at from now on, by poll(); false when it is none for that.
  std::function<bool(std::uint16_t queue)> begin;
  // True when there was something to do.
  std::function<bool(std::uint16_t queue)> poll;
  // Not any more; rings for what came too late for poll().
  std::function<void(std::uint16_t queue)> end;
};

// The doorbells of one device.
class Doorbells : public std::enable_shared_from_this<Doorbells> {
 public:
  // Called on the thread of the queue's event loop with the device's lock held.
  using OnReady = std::function<void()>;
  using OnRing = std::function<void(std::uint16_t queue)>;
  // A descriptor on the host's side that the device waits for, too. What is ready while the guest
  // does not run waits for it, as rings do.
  struct Source {
    int fd = -1;  // borrowed; level-triggered
    OnReady on_ready;
    std::uint16_t queue = 0;  // whose thread waits for it
  };
  // Whose thread serves a queue.
  struct Server {
    EventLoop* loop = nullptr;
    std::uint32_t number = 0;  // as the user counts them: 0 is the machine's own
  };

  // `servers`: one for each queue, at least one.
  static Result<std::shared_ptr<Doorbells>> create(const std::vector<Server>& servers,
                                                   const kvm::VmFd& vm,
                                                   std::vector<Source> sources);
  ~Doorbells();

  // Once, before start(). The device must not be reached through this after unbind(). With
  // `polling`, queues that were rung are polled when that pays.
  void bind(DeviceRef device, OnRing on_ring, QueuePolling polling = {});
  void unbind();
  // unbind(), and KVM forgets the places soon, before any that are placed later: the device has
  // left. place() has no effect any more.
  void retire();

  bool running() const;
  // The number of each queue's thread.
  std::vector<std::uint32_t> threads() const;

  // Have the queue looked at. Any thread, any lock held.
  void ring(std::uint16_t queue) const;
  // Where a guest's write rings, one place for each queue; none from now on when empty. Takes
  // effect soon. Any thread, any lock held.
  void place(std::vector<kvm::IoEvent> places);

  // The guest runs, or not any more: a ring that comes meanwhile waits for the next start(). After
  // stop(), whoever takes the device's lock finds it at rest. Errors: what epoll_ctl(2) says;
  // nothing is watched then.
  Result<void> start();
  void stop();

 private:
  // What one event loop does of it.
  class Lane;
  struct Bell {
    EventFd event;
    Lane* lane = nullptr;
    std::uint32_t thread = 0;
  };
  struct Watch {
    EventLoop* loop = nullptr;
    EventLoop::WatchId id = 0;
  };
  // What the bells lead to.
  struct Bound {
    DeviceRef device;
    OnRing on_ring;
    QueuePolling polling;
  };

  explicit Doorbells(const kvm::VmFd& vm);
  Lane& lane_of(EventLoop& loop);
  void on_ready(std::uint16_t queue);
  void on_source(std::size_t index);
  // Calls fn(bound) with the device's lock held; false, and does not, when the guest does not run.
  template <typename Fn>
  bool with_device(Fn&& fn);
  // All watches, or an error and perhaps some of them. Under the lock.
  Result<void> watch_all();
  Result<void> watch(EventLoop& loop, int fd, std::function<void(Doorbells&)> ready);
  void unwatch_all();
  EventLoop& first_loop() const;
  void apply_places();  // on the first loop's thread

  const kvm::VmFd& vm_;
  std::vector<std::unique_ptr<Lane>> lanes_;  // constant from the start, as the next two
  std::vector<Bell> bells_;
  std::vector<Source> sources_;
  std::vector<kvm::IoEvent> attached_;  // the first loop's thread only; KVM forgets them itself
  std::mutex mutex_;  // guards the rest; taken with the device's lock held, never the other way
  std::shared_ptr<const Bound> bound_;
  std::atomic<bool> running_{false};  // changes under the lock
  bool retired_ = false;
  std::vector<Watch> watches_;
  std::vector<kvm::IoEvent> places_;
  bool apply_posted_ = false;  // one is enough for all that changes before it runs
};

// Those of all devices of a machine, any thread. Destroy it before the event loop, the VM and the
// devices.
class DoorbellBoard {
 public:
  // `loops`: the machine's own one, then one for each further thread.
  DoorbellBoard(std::vector<EventLoop*> loops, const kvm::VmFd& vm)
      : loops_(std::move(loops)), vm_(vm) {}
  ~DoorbellBoard();

  // `sources`: what else the device waits for. `threads`: whose do its work, those of the queues in
  // turn; when empty, the machine's own does. While the guest runs, too; start_new() follows when
  // the device is bound. Errors: kBadConfig when there is no such thread; the host's.
  Result<std::shared_ptr<Doorbells>> add(std::uint16_t queues,
                                         std::vector<Doorbells::Source> sources,
                                         std::span<const std::uint32_t> threads = {});
  // The device has left.
  void remove(const std::shared_ptr<Doorbells>& bells);
  // Those of a device that came while the guest runs, if it does.
  Result<void> start_new(Doorbells& bells);
  // All of them, or none and an error.
  Result<void> start();
  void stop();

 private:
  const std::vector<EventLoop*> loops_;
  const kvm::VmFd& vm_;
  std::mutex mutex_;  // guards the rest; before that of each
  std::vector<std::shared_ptr<Doorbells>> all_;
  bool running_ = false;
};

}  // namespace vmm
