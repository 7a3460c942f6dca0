#include "vmm/debug/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace vmm::debug {
namespace {

TEST(ServerAddress, GoodOnesAreRead) {
  EXPECT_EQ(parse_address("stdio").value(), ServerAddress(StdioAddress{}));
  EXPECT_EQ(parse_address("unix:/tmp/x").value(), ServerAddress(UnixAddress{"/tmp/x"}));
  EXPECT_EQ(parse_address("tcp:127.0.0.1:1234").value(), ServerAddress(TcpAddress{false, 1234}));
  EXPECT_EQ(parse_address("tcp::0").value(), ServerAddress(TcpAddress{false, 0}));
  EXPECT_EQ(parse_address("tcp:[::1]:1234").value(), ServerAddress(TcpAddress{true, 1234}));
}

TEST(ServerAddress, OthersMayNotReachTheGuest) {
  const auto open = parse_address("tcp:0.0.0.0:1234");
  ASSERT_FALSE(open);
  EXPECT_THAT(open.error().message(), testing::HasSubstr("127.0.0.1"));
  EXPECT_FALSE(parse_address("tcp:[::]:1234"));
  EXPECT_FALSE(parse_address("tcp:example.org:1"));
}

TEST(ServerAddress, MalformedOnesAreRefused) {
  for (const std::string_view text : {"", "unix:", "tcp:", "tcp:1234", "tcp:127.0.0.1:",
                                      "tcp:127.0.0.1:65536", "tcp:127.0.0.1:1x", "udp::1"}) {
    EXPECT_FALSE(parse_address(text)) << text;
  }
}

TEST(Server, ListensOnceAtAnyPort) {
  const auto server = Server::create({}).value();
  const auto place = server->listen(TcpAddress{});
  ASSERT_TRUE(place);
  EXPECT_THAT(*place, testing::StartsWith("tcp:127.0.0.1:"));
  EXPECT_FALSE(server->listen(TcpAddress{}));
}

TEST(Server, SymbolsThatAreNotThereAreAnError) {
  ServerOptions options;
  options.symbols = "/nonexistent";
  EXPECT_FALSE(Server::create(std::move(options)));
}

}  // namespace
}  // namespace vmm::debug
