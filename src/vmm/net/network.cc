#include "vmm/net/network.h"

#include <utility>

#include "vmm/net/capture_backend.h"
#include "vmm/net/passt.h"
#include "vmm/net/pcap_writer.h"
#include "vmm/net/stream_backend.h"
#include "vmm/net/tap_backend.h"
#include "vmm/net/user_backend.h"

namespace vmm {
namespace {

using Queues = std::vector<std::unique_ptr<NetBackend>>;

template <typename Backend>
Queues one(std::unique_ptr<Backend> backend) {
  Queues queues;
  queues.push_back(std::move(backend));
  return queues;
}

Result<Queues> open(const UserNetwork& user) { return one(VMM_TRY(UserBackend::create(user))); }

Result<Queues> open(const TapNetwork& tap) {
  if (tap.queues == 1) return one(VMM_TRY(TapBackend::open(tap.name)));
  Queues queues;
  for (std::unique_ptr<TapBackend>& queue :
       VMM_TRY(TapBackend::open_queues(tap.name, tap.queues))) {
    queues.push_back(std::move(queue));
  }
  return queues;
}

Result<Queues> open(const FdNetwork& tap) { return one(VMM_TRY(TapBackend::adopt(tap.fd))); }

Result<Queues> open(const PasstNetwork& passt) {
  if (passt.socket) return one(VMM_TRY(StreamBackend::connect(*passt.socket)));
  return one(VMM_TRY(start_passt()));
}
Result<Queues> open(const VhostNetwork& network) {
  return fail(ErrorCode::kBadConfig, "The network at {} is one of vhost-user", network.socket);
}

}  // namespace

Result<std::vector<std::shared_ptr<NetBackend>>> open_network(const NetworkSpec& spec) {
  Queues queues = VMM_TRY(std::visit([](const auto& where) { return open(where); }, spec.where));
  std::shared_ptr<PcapWriter> writer;
  if (spec.capture_file) {
    writer = std::make_shared<PcapWriter>(VMM_TRY(PcapWriter::create(*spec.capture_file)));
  }
  std::vector<std::shared_ptr<NetBackend>> all;
  for (std::unique_ptr<NetBackend>& queue : queues) {
    if (writer != nullptr) {
      all.push_back(std::make_shared<CaptureBackend>(std::move(queue), writer));
    } else {
      all.push_back(std::move(queue));
    }
  }
  return all;
}

}  // namespace vmm
