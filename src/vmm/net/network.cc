#include "vmm/net/network.h"

#include <utility>

#include "vmm/net/capture_backend.h"
#include "vmm/net/pcap_writer.h"
#include "vmm/net/tap_backend.h"
#include "vmm/net/user_backend.h"

namespace vmm {
namespace {

Result<std::unique_ptr<NetBackend>> open(const UserNetwork& user) {
  return UserBackend::create(user);
}
Result<std::unique_ptr<NetBackend>> open(const TapNetwork& tap) {
  return TapBackend::open(tap.name);
}
Result<std::unique_ptr<NetBackend>> open(const FdNetwork& tap) { return TapBackend::adopt(tap.fd); }
Result<std::unique_ptr<NetBackend>> open(const VhostNetwork& network) {
  return fail(ErrorCode::kBadConfig, "The network at {} is one of vhost-user", network.socket);
}

}  // namespace

Result<std::shared_ptr<NetBackend>> open_network(const NetworkSpec& spec) {
  std::unique_ptr<NetBackend> backend =
      VMM_TRY(std::visit([](const auto& where) { return open(where); }, spec.where));
  if (!spec.capture_file) return backend;
  PcapWriter writer = VMM_TRY(PcapWriter::create(*spec.capture_file));
  return std::make_shared<CaptureBackend>(std::move(backend), std::move(writer));
}

}  // namespace vmm
