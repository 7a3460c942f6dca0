#include "cli/net_option.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

namespace vmm::cli {
namespace {

// The user network that the text means; an empty one after a failure.
UserNetwork user(const char* text) {
  const auto spec = parse_net(text);
  EXPECT_TRUE(spec) << spec.error().message();
  if (!spec || !std::holds_alternative<UserNetwork>(spec->where)) return {};
  return std::get<UserNetwork>(spec->where);
}

// What is said about a text that means nothing.
std::string complaint(const char* text) {
  const auto spec = parse_net(text);
  EXPECT_FALSE(spec) << text;
  return spec ? "" : spec.error().message();
}

TEST(NetOption, User_hasNoPrivileges) {
  EXPECT_TRUE(user("user").forwards.empty());
  EXPECT_FALSE(user("user").restricted);
  EXPECT_TRUE(user("user,restricted").restricted);
}

TEST(NetOption, Forwards_areRead) {
  const UserNetwork network = user(
      "user,hostfwd=tcp:127.0.0.1:2222-:22,hostfwd=udp:0.0.0.0:53-10.0.2.99:5353,"
      "hostfwd=tcp::8080-:80");
  ASSERT_EQ(network.forwards.size(), 3U);
  EXPECT_EQ(network.forwards[0], (PortForward{.host = {0x7f00'0001, 2222}, .guest = {0, 22}}));
  EXPECT_EQ(network.forwards[1],
            (PortForward{.udp = true, .host = {0, 53}, .guest = {0x0a00'0263, 5353}}));
  EXPECT_EQ(network.forwards[2].host, (Ipv4Endpoint{0x7f00'0001, 8080})) << "of this host only";
}

TEST(NetOption, TapAndDescriptor_areRead) {
  const auto tap = parse_net("tap=tap7,mac=52:54:00:12:34:56,pcap=/some/file,iothread=2");
  ASSERT_TRUE(tap);
  EXPECT_EQ(tap->io_threads, std::vector<std::uint32_t>{2});
  EXPECT_EQ(parse_net("tap=t,queues=2,iothread=2:1")->io_threads,
            (std::vector<std::uint32_t>{2, 1}));
  EXPECT_EQ(std::get<TapNetwork>(tap->where).name, "tap7");
  EXPECT_EQ(tap->mac->text(), "52:54:00:12:34:56");
  EXPECT_EQ(tap->capture_file, "/some/file");
  EXPECT_EQ(std::get<FdNetwork>(parse_net("fd=7")->where).fd, 7);
}

TEST(NetOption, Queues_belongToTap) {
  EXPECT_EQ(std::get<TapNetwork>(parse_net("tap=tap0")->where).queues, 1);
  EXPECT_EQ(std::get<TapNetwork>(parse_net("tap=tap0,queues=4")->where).queues, 4);
  EXPECT_NE(complaint("user,queues=2").find("tap=NAME"), std::string::npos);
  EXPECT_NE(complaint("passt,queues=2").find("tap=NAME"), std::string::npos);
  for (const char* text :
       {"tap=t,queues=0", "tap=t,queues=17", "tap=t,queues=", "tap=t,queues=x"}) {
    EXPECT_FALSE(complaint(text).empty());
  }
}

TEST(NetOption, Passt_isStartedOrConnectedTo) {
  EXPECT_EQ(std::get<PasstNetwork>(parse_net("passt")->where).socket, std::nullopt);
  EXPECT_EQ(std::get<PasstNetwork>(parse_net("passt=/run/passt")->where).socket, "/run/passt");
  EXPECT_FALSE(complaint("passt=").empty());
  EXPECT_FALSE(complaint("passt,hostfwd=tcp::1-:2").empty());
}

TEST(NetOption, OtherNetworks_areRefusedWithTheKnownOnes) {
  for (const char* text : {"", "bridge", "tap", "tap=", "user=1", "fd=x", "fd=-1", "fd="}) {
    const std::string said = complaint(text);
    EXPECT_FALSE(said.empty());
  }
  EXPECT_NE(complaint("bridge").find("tap=NAME"), std::string::npos);
}

TEST(NetOption, BadForwards_areRefusedWithAnExample) {
  for (const char* text :
       {"user,hostfwd=", "user,hostfwd=2222-22", "user,hostfwd=tcp:2222-:22",
        "user,hostfwd=sctp::1-:1", "user,hostfwd=tcp::0-:22", "user,hostfwd=tcp::2222-:65536",
        "user,hostfwd=tcp:localhost:1-:1", "user,hostfwd=tcp::1", "user,hostfwd=tcp::1-22"}) {
    EXPECT_NE(complaint(text).find("tcp:127.0.0.1:2222-:22"), std::string::npos) << text;
  }
}

TEST(NetOption, WhatBelongsToUser_isRefusedElsewhere) {
  EXPECT_NE(complaint("tap=tap0,hostfwd=tcp::1-:1").find("user only"), std::string::npos);
  EXPECT_NE(complaint("fd=3,restricted").find("user only"), std::string::npos);
}

TEST(NetOption, NetworkOfAnotherProcess_isReached) {
  const auto spec = parse_net("vhost-user=/run/net.sock,mac=52:54:00:00:00:01");
  ASSERT_TRUE(spec);
  EXPECT_EQ(std::get<VhostNetwork>(spec->where).socket, "/run/net.sock");
  EXPECT_NE(complaint("vhost-user=s,pcap=f").find("do not come by"), std::string::npos);
  EXPECT_NE(complaint("vhost-user=s,iothread=1").find("other process"), std::string::npos);
  EXPECT_NE(complaint("vhost-user=").find("no network"), std::string::npos);
}

TEST(NetOption, OtherWords_areRefused) {
  EXPECT_NE(complaint("user,bandwidth=1").find("bandwidth=1"), std::string::npos);
  EXPECT_NE(complaint("user,pcap=").find("pcap="), std::string::npos);
  EXPECT_NE(complaint("user,").find("unknown"), std::string::npos);
}

TEST(NetOption, AddressesOfGroups_areRefused) {
  EXPECT_NE(complaint("user,mac=01:00:5e:00:00:01").find("even"), std::string::npos);
  EXPECT_NE(complaint("user,mac=00:00:00:00:00:00").find("own address"), std::string::npos);
  EXPECT_NE(complaint("user,mac=52:54").find("no MAC address"), std::string::npos);
}

TEST(NetOption, DefaultAddress_isStableAndOnesOwn) {
  const NetworkSpec user_network;
  NetworkSpec tap;
  tap.where = TapNetwork{"tap0"};
  EXPECT_EQ(default_mac("one", user_network, 0), default_mac("one", user_network, 0));
  const std::set<MacAddress> all{default_mac("one", user_network, 0),
                                 default_mac("two", user_network, 0),
                                 default_mac("one", user_network, 1), default_mac("one", tap, 0)};
  EXPECT_EQ(all.size(), 4U);
}

}  // namespace
}  // namespace vmm::cli
