#include "vmm/vhost/front_end.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

namespace vmm::vhost {
namespace {

template <typename T>
std::span<const std::byte> bytes_of(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}

// Without the protocol feature MQ, a back-end serves one queue, or one pair.
constexpr std::uint16_t kQueuesWithoutMq = 2;

}  // namespace

Result<FrontEnd> FrontEnd::connect(UniqueFd socket, const EventFd& end,
                                   std::chrono::milliseconds patience, std::uint32_t config_size) {
  FrontEnd front(std::make_unique<MessageChannel>(std::move(socket), end, patience));
  VMM_TRY(front.agree(end, patience, config_size));
  return front;
}

Result<void> FrontEnd::agree(const EventFd& end, std::chrono::milliseconds patience,
                             std::uint32_t config_size) {
  VMM_TRY(tell(Request::kSetOwner, {}));
  features_ = VMM_TRY(ask_number(Request::kGetFeatures));
  if ((features_ & kFeatureProtocol) == 0) {
    return fail(ErrorCode::kUnsupported, "The back-end is too old: it has no protocol features");
  }
  features_ &= ~kFeatureProtocol;
  const std::uint64_t offered = VMM_TRY(ask_number(Request::kGetProtocolFeatures));
  const std::uint64_t known = kProtocolMultiQueue | kProtocolReplyAck |
                              (config_size != 0 ? kProtocolConfig | kProtocolBackendReq : 0);
  if (config_size != 0 && (offered & kProtocolConfig) == 0) {
    return fail(ErrorCode::kUnsupported,
                "The back-end cannot tell a configuration space (protocol feature CONFIG)");
  }
  // Before it is agreed on, no request is acknowledged.
  const std::uint64_t wanted = offered & known;
  VMM_TRY(tell(Request::kSetProtocolFeatures, bytes_of(wanted)));
  protocol_ = wanted;
  most_queues_ = kQueuesWithoutMq;
  if ((protocol_ & kProtocolMultiQueue) != 0) {
    const std::uint64_t queues = VMM_TRY(ask_number(Request::kGetQueueNum));
    most_queues_ = static_cast<std::uint16_t>(
        std::min<std::uint64_t>(queues, std::numeric_limits<std::uint16_t>::max()));
  }
  if ((protocol_ & kProtocolBackendReq) != 0) VMM_TRY(open_backend_channel(end, patience));
  return {};
}

Result<void> FrontEnd::open_backend_channel(const EventFd& end,
                                            std::chrono::milliseconds patience) {
  std::array<int, 2> ends{-1, -1};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return fail_errno(errno, "Create a pair of sockets");
  }
  UniqueFd ours(ends[0]);
  const UniqueFd theirs(ends[1]);
  const int fd = theirs.get();
  VMM_TRY(tell(Request::kSetBackendReqFd, {}, {&fd, 1}));
  backend_ = std::make_unique<MessageChannel>(std::move(ours), end, patience);
  return {};
}

Result<void> FrontEnd::tell(Request request, std::span<const std::byte> payload,
                            std::span<const int> fds) const {
  const bool acknowledged = (protocol_ & kProtocolReplyAck) != 0;
  Header header{.request = static_cast<std::uint32_t>(request),
                .size = static_cast<std::uint32_t>(payload.size())};
  if (acknowledged) header.flags |= Header::kNeedReply;
  VMM_TRY(channel_->send(header, payload, fds));
  if (!acknowledged) return {};
  std::uint64_t status = 0;
  VMM_TRY(read_answer(request, std::as_writable_bytes(std::span(&status, 1))));
  if (status == 0) return {};
  return fail(ErrorCode::kUnsupported, "The back-end refused request {}", header.request);
}

Result<void> FrontEnd::ask(Request request, std::span<const std::byte> payload,
                           std::span<std::byte> answer) const {
  VMM_TRY(channel_->send({.request = static_cast<std::uint32_t>(request),
                          .size = static_cast<std::uint32_t>(payload.size())},
                         payload));
  return read_answer(request, answer);
}

Result<void> FrontEnd::read_answer(Request request, std::span<std::byte> answer) const {
  const MessageChannel::Message message = VMM_TRY(channel_->receive());
  const Header& header = message.header;
  if ((header.flags & Header::kReply) == 0 ||
      header.request != static_cast<std::uint32_t>(request) ||
      message.payload.size() != answer.size()) {
    return fail(ErrorCode::kIo,
                "The back-end answered request {} with message {} of {} bytes, flags {:#x}",
                static_cast<std::uint32_t>(request), header.request, header.size, header.flags);
  }
  std::copy(message.payload.begin(), message.payload.end(), answer.begin());
  return {};
}

Result<std::uint64_t> FrontEnd::ask_number(Request request) const {
  std::uint64_t number = 0;
  VMM_TRY(ask(request, {}, std::as_writable_bytes(std::span(&number, 1))));
  return number;
}

Result<std::vector<std::byte>> FrontEnd::get_config(std::uint32_t size) const {
  const ConfigHeader header{.size = std::min(size, kMostConfig)};
  std::vector<std::byte> bytes(sizeof header + header.size);
  std::memcpy(bytes.data(), &header, sizeof header);
  std::vector<std::byte> answer(bytes.size());
  VMM_TRY(ask(Request::kGetConfig, bytes, answer));
  return std::vector<std::byte>(answer.begin() + sizeof header, answer.end());
}

Result<void> FrontEnd::set_config(std::uint32_t offset, std::span<const std::byte> data) const {
  const ConfigHeader header{.offset = offset, .size = static_cast<std::uint32_t>(data.size())};
  std::vector<std::byte> bytes(sizeof header + data.size());
  std::memcpy(bytes.data(), &header, sizeof header);
  std::copy(data.begin(), data.end(), bytes.begin() + sizeof header);
  return tell(Request::kSetConfig, bytes);
}

Result<void> FrontEnd::set_features(std::uint64_t features) const {
  const std::uint64_t all = features | kFeatureProtocol;
  return tell(Request::kSetFeatures, bytes_of(all));
}

Result<void> FrontEnd::set_memory(std::span<const MemoryRegion> regions,
                                  std::span<const int> fds) const {
  MemoryTable table{.count = static_cast<std::uint32_t>(regions.size())};
  if (regions.size() > table.regions.size()) {
    return fail(ErrorCode::kUnsupported,
                "Guest memory has {} parts: a vhost-user back-end takes {} at most", regions.size(),
                table.regions.size());
  }
  std::copy(regions.begin(), regions.end(), table.regions.begin());
  const std::size_t size = offsetof(MemoryTable, regions) + regions.size_bytes();
  return tell(Request::kSetMemTable, bytes_of(table).first(size), fds);
}

Result<void> FrontEnd::set_descriptor(Request request, std::uint32_t index, int fd) const {
  const std::uint64_t number = index;
  return tell(request, bytes_of(number), {&fd, 1});
}

Result<void> FrontEnd::start_ring(const Ring& ring) const {
  const std::uint32_t index = ring.address.index;
  VMM_TRY(tell(Request::kSetVringNum, bytes_of(VringState{index, ring.size})));
  VMM_TRY(tell(Request::kSetVringBase, bytes_of(VringState{index, 0})));
  VMM_TRY(tell(Request::kSetVringAddr, bytes_of(ring.address)));
  VMM_TRY(set_descriptor(Request::kSetVringCall, index, ring.call));
  VMM_TRY(set_descriptor(Request::kSetVringErr, index, ring.error));
  // A ring begins with its kick descriptor, so that comes last.
  VMM_TRY(set_descriptor(Request::kSetVringKick, index, ring.kick));
  return tell(Request::kSetVringEnable, bytes_of(VringState{index, 1}));
}

Result<void> FrontEnd::stop_ring(std::uint32_t index) const {
  VringState state;
  VMM_TRY(ask(Request::kGetVringBase, bytes_of(VringState{index, 0}),
              std::as_writable_bytes(std::span(&state, 1))));
  if (state.index == index) return {};
  return fail(ErrorCode::kIo, "The back-end stopped ring {} instead of {}", state.index, index);
}

Result<void> FrontEnd::settle() const {
  // Requests are carried out in their order, so any that has an answer will do.
  VMM_TRY(ask_number(Request::kGetFeatures));
  return {};
}

Result<bool> FrontEnd::serve_backend() const {
  const MessageChannel::Message message = VMM_TRY(backend_->receive());
  const Header& header = message.header;
  const bool known = header.request == static_cast<std::uint32_t>(BackendRequest::kConfigChange) &&
                     (header.flags & Header::kReply) == 0;
  if ((header.flags & Header::kNeedReply) != 0) {
    const std::uint64_t status = known ? 0 : 1;
    VMM_TRY(backend_->send({.request = header.request,
                            .flags = Header::kVersion | Header::kReply,
                            .size = sizeof status},
                           bytes_of(status)));
  }
  return known;
}

}  // namespace vmm::vhost
