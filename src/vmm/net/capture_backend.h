// A network whose traffic is written to a capture file, both ways, as the guest sees it.
#pragma once

#include <memory>

#include "devices/net_backend.h"
#include "vmm/net/pcap_writer.h"

namespace vmm {

class CaptureBackend final : public NetBackend {
 public:
  // The queues of one network, which one lock covers, share a file.
  CaptureBackend(std::unique_ptr<NetBackend> inner, std::shared_ptr<PcapWriter> writer)
      : inner_(std::move(inner)), writer_(std::move(writer)) {}

  NetOffloads to_host() const noexcept override { return inner_->to_host(); }
  NetOffloads to_guest() const noexcept override { return inner_->to_guest(); }
  std::optional<std::uint16_t> mtu() const noexcept override { return inner_->mtu(); }
  bool link_up() const noexcept override { return inner_->link_up(); }
  void set_enabled(bool enabled) override { inner_->set_enabled(enabled); }
  void allow_to_guest(const NetOffloads& allowed) override { inner_->allow_to_guest(allowed); }
  bool send(const NetHeader& header, std::span<const ::iovec> frame) override;
  void end_batch() override { inner_->end_batch(); }
  std::optional<std::size_t> receive(NetHeader& header, std::span<const ::iovec> into) override;
  bool has_frame() const noexcept override { return inner_->has_frame(); }
  int ready_fd() const noexcept override { return inner_->ready_fd(); }
  void want_frames(bool wanted) override { inner_->want_frames(wanted); }

 private:
  std::unique_ptr<NetBackend> inner_;
  std::shared_ptr<PcapWriter> writer_;
};

}  // namespace vmm
