// A tap device of the host as a network: frames go to and come from the kernel, with what is left
// undone on them.
//
// Documents: Linux, Documentation/networking/tuntap.rst, <linux/if_tun.h>. Macvtap devices speak
// the same language and come as descriptors.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "devices/net_backend.h"
#include "vmm/net/fd_gate.h"

namespace vmm {

class TapBackend final : public NetBackend {
 public:
  // A tap device that exists. Errors: kBadConfig when there is none of that name; kResource when
  // another program has it; kIo when it may not be used.
  static Result<std::unique_ptr<TapBackend>> open(const std::string& name);
  // Several queues of one that was made with multi_queue. Errors: as open(), and kBadConfig for one
  // that was not.
  static Result<std::vector<std::unique_ptr<TapBackend>>> open_queues(const std::string& name,
                                                                      std::size_t count);
  // An open descriptor of one, of which a duplicate is used. Errors: kBadConfig when it is
  // something else.
  static Result<std::unique_ptr<TapBackend>> adopt(int fd);

  const std::string& name() const noexcept { return name_; }  // of the interface: "tap0"

  NetOffloads to_host() const noexcept override { return offloads_; }
  NetOffloads to_guest() const noexcept override { return offloads_; }
  std::optional<std::uint16_t> mtu() const noexcept override { return mtu_; }
  bool link_up() const noexcept override { return up_; }
  void set_enabled(bool enabled) override;
  void allow_to_guest(const NetOffloads& allowed) override;
  bool send(const NetHeader& header, std::span<const ::iovec> frame) override;
  std::optional<std::size_t> receive(NetHeader& header, std::span<const ::iovec> into) override;
  int ready_fd() const noexcept override { return gate_.fd(); }
  void want_frames(bool wanted) override;

 private:
  TapBackend(UniqueFd fd, FdGate gate) : fd_(std::move(fd)), gate_(std::move(gate)) {}
  static Result<std::unique_ptr<TapBackend>> create(UniqueFd fd);
  Result<void> set_up_header();

  UniqueFd fd_;
  FdGate gate_;
  std::string name_;
  bool has_header_ = false;  // frames carry a NetHeader on the descriptor, too
  bool up_ = true;
  bool enabled_ = true;  // a queue that is not is detached from the device
  NetOffloads offloads_;
  std::optional<std::uint16_t> mtu_;
};

}  // namespace vmm
