#include "cli/net_option.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>

#include <limits>
#include <optional>
#include <span>
#include <utility>

#include "cli/option_values.h"

namespace vmm::cli {
namespace {

constexpr std::string_view kWhere =
    "user, tap=NAME, fd=N, passt, passt=SOCKET or vhost-user=SOCKET";
constexpr std::uint64_t kMostQueues = 16;  // what the device has

struct Word {
  std::string_view key, value;
  bool has_value = false;
};

Word word(std::string_view text) {
  const auto equals = text.find('=');
  if (equals == std::string_view::npos) return {text, {}, false};
  return {text.substr(0, equals), text.substr(equals + 1), true};
}

tl::unexpected<Error> wrong_forward(std::string_view text) {
  return fail(ErrorCode::kBadConfig,
              "'{}' is no forwarded port: tcp:127.0.0.1:2222-:22 leads port 2222 of this host to "
              "port 22 of the guest; udp does the same for datagrams",
              text);
}

std::optional<std::uint16_t> port(std::string_view text) {
  const auto number = parse_number(text, std::numeric_limits<std::uint16_t>::max());
  if (!number || *number == 0) return std::nullopt;
  return static_cast<std::uint16_t>(*number);
}

// "[ADDRESS]:PORT"; without an address, the one that is there stays.
bool read_endpoint(std::string_view text, Ipv4Endpoint& endpoint) {
  const auto colon = text.rfind(':');
  if (colon == std::string_view::npos) return false;
  const auto number = port(text.substr(colon + 1));
  if (!number) return false;
  endpoint.port = *number;
  if (colon == 0) return true;
  ::in_addr address{};
  if (::inet_pton(AF_INET, std::string(text.substr(0, colon)).c_str(), &address) != 1) return false;
  endpoint.address = ntohl(address.s_addr);
  return true;
}

Result<PortForward> parse_forward(std::string_view text) {
  PortForward forward;
  const auto colon = text.find(':');
  const auto dash = text.find('-');
  if (colon == std::string_view::npos || dash == std::string_view::npos || dash < colon) {
    return wrong_forward(text);
  }
  const std::string_view protocol = text.substr(0, colon);
  forward.udp = protocol == "udp";
  if ((!forward.udp && protocol != "tcp") ||
      !read_endpoint(text.substr(colon + 1, dash - colon - 1), forward.host) ||
      !read_endpoint(text.substr(dash + 1), forward.guest)) {
    return wrong_forward(text);
  }
  return forward;
}

Result<NetworkSpec> parse_where(const Word& word) {
  NetworkSpec spec;
  if (word.key == "user" && !word.has_value) return spec;
  if (word.key == "tap" && !word.value.empty()) {
    spec.where = TapNetwork{std::string(word.value)};
    return spec;
  }
  if (word.key == "fd" && word.has_value) {
    const std::uint64_t fd = VMM_TRY(parse_number(word.value, std::numeric_limits<int>::max()));
    spec.where = FdNetwork{static_cast<int>(fd)};
    return spec;
  }
  if (word.key == "vhost-user" && !word.value.empty()) {
    spec.where = VhostNetwork{std::string(word.value)};
    return spec;
  }
  if (word.key == "passt" && word.has_value == !word.value.empty()) {
    PasstNetwork passt;
    if (word.has_value) passt.socket = std::string(word.value);
    spec.where = passt;
    return spec;
  }
  return fail(ErrorCode::kBadConfig, "'{}' is no network: {}", word.key, kWhere);
}

Result<void> apply_mac(std::string_view text, NetworkSpec& spec) {
  const MacAddress address = VMM_TRY(MacAddress::parse(text));
  if (address.is_group() || address.is_zero()) {
    return fail(ErrorCode::kBadConfig,
                "{} cannot be an interface's own address: the first byte has to be even, as in "
                "52:54:00:12:34:56",
                text);
  }
  spec.mac = address;
  return {};
}

Result<void> apply_queues(std::string_view text, NetworkSpec& spec) {
  auto* const tap = std::get_if<TapNetwork>(&spec.where);
  if (tap == nullptr) {
    return fail(ErrorCode::kBadConfig,
                "'queues' belongs to tap=NAME only: other networks have one queue");
  }
  const std::uint64_t queues = VMM_TRY(parse_number(text, kMostQueues));
  if (queues == 0) return fail(ErrorCode::kBadConfig, "an interface without queues has no use");
  tap->queues = static_cast<std::uint16_t>(queues);
  return {};
}

Result<void> apply(const Word& word, std::string_view text, NetworkSpec& spec) {
  if (word.key == "mac") return apply_mac(word.value, spec);
  if (word.key == "pcap" && std::holds_alternative<VhostNetwork>(spec.where)) {
    return fail(ErrorCode::kBadConfig,
                "pcap= is not possible with vhost-user: frames do not come by here");
  }
  if (word.key == "pcap" && !word.value.empty()) {
    spec.capture_file = std::string(word.value);
    return {};
  }
  if (word.key == "iothread" && std::holds_alternative<VhostNetwork>(spec.where)) {
    return fail(ErrorCode::kBadConfig,
                "iothread= is not possible with vhost-user: the other process does the work");
  }
  if (word.key == "queues") return apply_queues(word.value, spec);
  if (word.key == "iothread" && word.has_value) {
    spec.io_threads = VMM_TRY(parse_io_threads(word.value));
    return {};
  }
  auto* const user = std::get_if<UserNetwork>(&spec.where);
  if (word.key == "hostfwd" || text == "restricted") {
    if (user == nullptr) {
      return fail(ErrorCode::kBadConfig,
                  "'{}' belongs to user only: a network of the host's is "
                  "set up on the host",
                  word.key);
    }
    if (text == "restricted") {
      user->restricted = true;
    } else {
      user->forwards.push_back(VMM_TRY(parse_forward(word.value)));
    }
    return {};
  }
  return fail(
      ErrorCode::kBadConfig,
      "'{}' is unknown: mac=ADDRESS, pcap=FILE, iothread=N[:N]..., queues=N for tap and, for user, "
      "hostfwd=... and restricted are known",
      text);
}

}  // namespace

Result<NetworkSpec> parse_net(std::string_view text) {
  const std::vector<std::string_view> parts = split(text, ',');
  NetworkSpec spec = VMM_TRY(parse_where(word(parts.front())));
  for (const std::string_view part : std::span(parts).subspan(1)) {
    VMM_TRY(apply(word(part), part, spec));
  }
  return spec;
}

VirtioNetConfig net_config(std::string name, const MacAddress& mac,
                           std::span<const std::shared_ptr<NetBackend>> queues) {
  return {.name = std::move(name),
          .mac = mac,
          .backend = queues.front(),
          .more_queues = {queues.begin() + 1, queues.end()}};
}

MacAddress default_mac(std::string_view machine, const NetworkSpec& network, std::size_t index) {
  const auto* const tap = std::get_if<TapNetwork>(&network.where);
  return MacAddress::derive(
      fmt::format("{}\n{}\n{}", machine, tap != nullptr ? tap->name : "", index));
}

}  // namespace vmm::cli
