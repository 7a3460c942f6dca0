// A vhost-user back-end for tests: a thread that answers on one end of a socket, serves rings, and
// misbehaves when it is told to.
#pragma once

#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "base/unique_fd.h"
#include "vmm/vhost/vhost_protocol.h"

namespace vmm::test {

// What can be wrong with an answer.
enum class Mischief : std::uint8_t {
  kNone,
  kTruncated,  // half of it, and the end
  kShort,      // complete, but four bytes too few
  kLong,       // four bytes too many
  kEndless,    // says that it has 4 GiB
  kOtherKind,  // the answer to something else
  kOtherVersion,
  kNoReply,      // not marked as an answer
  kDescriptors,  // with a descriptor
  kSilence,
  kEnd,  // closes the connection instead
};

class BackEnd {
 public:
  using Request = vhost::Request;

  struct Ring {
    std::uint32_t size = 0;
    vhost::VringAddress address = {};
    UniqueFd kick, call;
    bool enabled = false;
    std::uint16_t seen = 0;
  };
  struct Settings {
    std::uint64_t features = (1ULL << 32) | (1ULL << 9) | (1ULL << 28) | (1ULL << 29);
    bool protocol_features = true;
    std::uint64_t protocol = vhost::kProtocolMultiQueue | vhost::kProtocolReplyAck |
                             vhost::kProtocolConfig | vhost::kProtocolBackendReq;
    std::uint64_t queues = 4;
    std::vector<std::byte> config = std::vector<std::byte>(60);
    Request at = Request::kSetOwner;  // the request that the mischief is done to
    Mischief mischief = Mischief::kNone;
    bool answer_rings = true;
  };

  BackEnd(UniqueFd socket, Settings settings)
      : socket_(std::move(socket)), settings_(std::move(settings)) {
    thread_ = std::thread([this] { run(); });
  }
  ~BackEnd() {
    end();
    for (const auto& [base, region] : regions_) ::munmap(region.at, region.size);
  }
  void end() {
    ::shutdown(socket_.get(), SHUT_RDWR);
    if (thread_.joinable()) thread_.join();
    socket_.reset();
  }

  std::atomic<std::uint64_t> acked{0};    // features
  std::atomic<std::uint32_t> regions{0};  // of the memory that it was told of last
  std::atomic<int> served{0};             // requests answered
  std::atomic<int> stopped{0};            // GET_VRING_BASE
  std::atomic<std::uint8_t> written_config{0};
  // What the used ring says instead of the truth.
  std::atomic<int> used_id{-1}, used_count{1};

  // Has the front-end ask for the configuration space, which has another first byte now.
  void change_config(std::uint8_t first) {
    const std::lock_guard lock(mutex_);
    settings_.config[0] = std::byte{first};
    const vhost::Header header{.request = 2};
    (void)!::write(backend_.get(), &header, sizeof header);
  }

 private:
  struct Region {
    std::byte* at = nullptr;
    std::size_t size = 0;
  };

  bool read_all(void* into, std::size_t size) {
    auto* at = static_cast<std::byte*>(into);
    while (size != 0) {
      std::vector<::pollfd> fds{{socket_.get(), POLLIN, 0}};
      for (auto& [index, ring] : rings_) {
        if (ring.kick && ring.enabled) fds.push_back({ring.kick.get(), POLLIN, 0});
      }
      if (::poll(fds.data(), fds.size(), -1) < 0) return false;
      if (fds[0].revents == 0) {
        for (auto& [index, ring] : rings_) serve(ring);
        continue;
      }
      ::iovec piece{at, size};
      alignas(::cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int) * 8)> control{};
      ::msghdr message{};
      message.msg_iov = &piece;
      message.msg_iovlen = 1;
      message.msg_control = control.data();
      message.msg_controllen = control.size();
      const ssize_t n = ::recvmsg(socket_.get(), &message, MSG_CMSG_CLOEXEC);
      if (n <= 0) return false;
      if (::cmsghdr* const c = CMSG_FIRSTHDR(&message); c != nullptr) {
        const std::size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (std::size_t i = 0; i < count; ++i) {
          int fd = -1;
          std::memcpy(&fd, CMSG_DATA(c) + sizeof(int) * i, sizeof fd);
          fds_.emplace_back(fd);
        }
      }
      at += n;
      size -= static_cast<std::size_t>(n);
    }
    return true;
  }

  void run() {
    for (;;) {
      vhost::Header header;
      fds_.clear();
      if (!read_all(&header, sizeof header)) return;
      payload_.resize(header.size);
      if (!read_all(payload_.data(), payload_.size())) return;
      const auto answer = carry_out(static_cast<Request>(header.request));
      std::vector<std::byte> reply;
      if (answer) {
        reply = *answer;
      } else if ((header.flags & vhost::Header::kNeedReply) != 0) {
        reply.resize(8);
      } else {
        continue;
      }
      if (!send(header.request, reply)) return;
    }
  }

  bool send(std::uint32_t request, std::vector<std::byte> reply) {
    const Mischief mischief =
        static_cast<std::uint32_t>(settings_.at) == request ? settings_.mischief : Mischief::kNone;
    if (mischief == Mischief::kSilence) return true;
    if (mischief == Mischief::kEnd) {
      ::shutdown(socket_.get(), SHUT_RDWR);
      return false;
    }
    if (mischief == Mischief::kShort) reply.resize(reply.size() - 4);
    if (mischief == Mischief::kLong) reply.resize(reply.size() + 4);
    vhost::Header header{.request = request + (mischief == Mischief::kOtherKind ? 1 : 0),
                         .flags = vhost::Header::kVersion | vhost::Header::kReply,
                         .size = static_cast<std::uint32_t>(reply.size())};
    if (mischief == Mischief::kOtherVersion) header.flags = 2 | vhost::Header::kReply;
    if (mischief == Mischief::kNoReply) header.flags = vhost::Header::kVersion;
    if (mischief == Mischief::kEndless) header.size = 0xffff'ffff;
    std::vector<std::byte> bytes(sizeof header + reply.size());
    std::memcpy(bytes.data(), &header, sizeof header);
    std::copy(reply.begin(), reply.end(), bytes.begin() + sizeof header);
    if (mischief == Mischief::kTruncated) bytes.resize(bytes.size() - 4);
    ::iovec piece{bytes.data(), bytes.size()};
    ::msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    alignas(::cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int))> control{};
    if (mischief == Mischief::kDescriptors) {
      message.msg_control = control.data();
      message.msg_controllen = control.size();
      ::cmsghdr* const c = CMSG_FIRSTHDR(&message);
      c->cmsg_level = SOL_SOCKET;
      c->cmsg_type = SCM_RIGHTS;
      c->cmsg_len = CMSG_LEN(sizeof(int));
      const int fd = socket_.get();
      std::memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    (void)!::sendmsg(socket_.get(), &message, MSG_NOSIGNAL);
    if (mischief == Mischief::kTruncated) ::shutdown(socket_.get(), SHUT_RDWR);
    return mischief != Mischief::kTruncated;
  }

  template <typename T>
  T take() const {
    T value{};
    const std::size_t bytes = std::min(sizeof value, payload_.size());
    std::copy_n(payload_.begin(), bytes, std::as_writable_bytes(std::span(&value, 1)).begin());
    return value;
  }
  template <typename T>
  static std::vector<std::byte> bytes_of(const T& value) {
    std::vector<std::byte> bytes(sizeof value);
    std::memcpy(bytes.data(), &value, sizeof value);
    return bytes;
  }

  std::optional<std::vector<std::byte>> carry_out(Request request) {
    const std::lock_guard lock(mutex_);
    const auto state = take<vhost::VringState>();
    switch (request) {
      case Request::kGetFeatures:
        return bytes_of(settings_.features |
                        (settings_.protocol_features ? vhost::kFeatureProtocol : 0));
      case Request::kSetFeatures:
        acked = take<std::uint64_t>();
        break;
      case Request::kGetProtocolFeatures:
        return bytes_of(settings_.protocol);
      case Request::kGetQueueNum:
        return bytes_of(settings_.queues);
      case Request::kSetBackendReqFd:
        backend_ = std::move(fds_.at(0));
        break;
      case Request::kGetConfig: {
        std::vector<std::byte> answer = payload_;
        std::copy(settings_.config.begin(), settings_.config.end(),
                  answer.begin() + sizeof(vhost::ConfigHeader));
        return answer;
      }
      case Request::kSetConfig:
        written_config = std::to_integer<std::uint8_t>(payload_.back());
        break;
      case Request::kSetMemTable:
        map_memory();
        break;
      case Request::kSetVringNum:
        rings_[state.index].size = state.value;
        break;
      case Request::kSetVringBase:
        rings_[state.index].seen = static_cast<std::uint16_t>(state.value);
        break;
      case Request::kSetVringAddr:
        rings_[state.index].address = take<vhost::VringAddress>();
        break;
      case Request::kSetVringKick:
        rings_[state.index].kick = std::move(fds_.at(0));
        break;
      case Request::kSetVringCall:
        rings_[state.index].call = std::move(fds_.at(0));
        break;
      case Request::kSetVringEnable:
        rings_[state.index].enabled = state.value == 1;
        break;
      case Request::kGetVringBase:
        ++stopped;
        rings_[state.index].enabled = false;
        rings_[state.index].kick.reset();
        return bytes_of(vhost::VringState{state.index, rings_[state.index].seen});
      case Request::kSetOwner:
      case Request::kSetProtocolFeatures:
      case Request::kSetVringErr:
        break;
    }
    return std::nullopt;
  }

  void map_memory() {
    const auto table = take<vhost::MemoryTable>();
    for (const auto& [base, region] : regions_) ::munmap(region.at, region.size);
    regions_.clear();
    regions = table.count;
    for (std::uint32_t i = 0; i < table.count; ++i) {
      const vhost::MemoryRegion& region = table.regions[i];
      void* const at =
          ::mmap(nullptr, region.size, PROT_READ | PROT_WRITE, MAP_SHARED, fds_.at(i).get(), 0);
      if (at != MAP_FAILED) {
        regions_[region.guest_address] = {static_cast<std::byte*>(at), region.size};
      }
    }
  }
  std::byte* at(std::uint64_t address) {
    for (const auto& [base, region] : regions_) {
      if (address >= base && address - base < region.size) return region.at + (address - base);
    }
    return nullptr;
  }
  template <typename T>
  T load(std::uint64_t address) {
    T value{};
    if (const std::byte* const from = at(address)) std::memcpy(&value, from, sizeof value);
    return value;
  }
  template <typename T>
  void store(std::uint64_t address, T value) {
    if (std::byte* const to = at(address)) std::memcpy(to, &value, sizeof value);
  }

  // Fills what may be written with 0xab, and says how much that was.
  void serve(Ring& ring) {
    std::uint64_t count = 0;
    if (!ring.kick || !ring.enabled || !settings_.answer_rings) {
      if (ring.kick && ring.enabled) (void)!::read(ring.kick.get(), &count, sizeof count);
      return;
    }
    (void)!::read(ring.kick.get(), &count, sizeof count);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    const auto index = load<std::uint16_t>(ring.address.available + 2);
    for (; ring.seen != index; ++ring.seen) {
      const std::uint32_t place = ring.seen % ring.size;
      const auto head = load<std::uint16_t>(ring.address.available + 4 + 2 * place);
      std::uint32_t written = 0;
      for (std::uint16_t d = head;;) {
        const std::uint64_t at_d = ring.address.descriptors + 16ULL * d;
        const auto flags = load<std::uint16_t>(at_d + 12);
        if ((flags & 2) != 0) {
          const auto length = load<std::uint32_t>(at_d + 8);
          if (std::byte* const to = at(load<std::uint64_t>(at_d))) {
            std::memset(to, 0xab, length);
          }
          written += length;
        }
        if ((flags & 1) == 0) break;
        d = load<std::uint16_t>(at_d + 14);
      }
      const std::uint32_t id = used_id >= 0 ? static_cast<std::uint32_t>(used_id) : head;
      store<std::uint32_t>(ring.address.used + 4 + 8 * place, id);
      store<std::uint32_t>(ring.address.used + 8 + 8 * place, written);
      std::atomic_thread_fence(std::memory_order_seq_cst);
      store<std::uint16_t>(ring.address.used + 2,
                           static_cast<std::uint16_t>(ring.seen + used_count));
      ++served;
    }
    const std::uint64_t one = 1;
    (void)!::write(ring.call.get(), &one, sizeof one);
  }

  UniqueFd socket_;
  std::mutex mutex_;  // guards the rest against the test's own thread
  Settings settings_;
  UniqueFd backend_;
  std::vector<UniqueFd> fds_;
  std::vector<std::byte> payload_;
  std::map<std::uint32_t, Ring> rings_;
  std::map<std::uint64_t, Region> regions_;
  std::thread thread_;
};

}  // namespace vmm::test
