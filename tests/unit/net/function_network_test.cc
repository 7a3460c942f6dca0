#include "vmm/net/function_network.h"

#include <gtest/gtest.h>

#include <thread>

#include "tests/unit/net/net_support.h"

namespace vmm::test {
namespace {

const Frame kFrame(100, std::byte{0x5a});

TEST(FunctionNetwork, FramesOfTheGuest_comeToTheFunction) {
  std::vector<Frame> frames;
  const auto network = FunctionNetwork::create([&](std::span<const std::byte> frame) {
                         frames.emplace_back(frame.begin(), frame.end());
                       }).value();
  EXPECT_TRUE(send(*network, kFrame));
  EXPECT_EQ(frames, std::vector<Frame>{kFrame});
}

TEST(FunctionNetwork, FramesForTheGuest_makeItReady) {
  const auto network = FunctionNetwork::create({}).value();
  EXPECT_FALSE(is_ready(*network));
  std::thread([&] { EXPECT_TRUE(network->push(kFrame)); }).join();
  EXPECT_TRUE(is_ready(*network));
  network->want_frames(false);
  EXPECT_FALSE(is_ready(*network));
  network->want_frames(true);
  EXPECT_TRUE(is_ready(*network));
  NetHeader header;
  EXPECT_EQ(receive(*network, header), kFrame);
  EXPECT_FALSE(is_ready(*network));
  EXPECT_EQ(receive(*network, header), std::nullopt);
  EXPECT_TRUE(send(*network, kFrame)) << "without a function they are lost";
}

TEST(FunctionNetwork, WhatIsTooMuch_isDropped) {
  const auto network = FunctionNetwork::create({}).value();
  EXPECT_FALSE(network->push({}));
  EXPECT_FALSE(network->push(Frame(NetBackend::kMostFrame + 1)));
  for (std::size_t i = 0; i < FunctionNetwork::kMostFrames; ++i) EXPECT_TRUE(network->push(kFrame));
  EXPECT_FALSE(network->push(kFrame));
}

TEST(FunctionNetwork, Function_mayAnswerAtOnce) {
  FunctionNetwork* self = nullptr;
  const auto network =
      FunctionNetwork::create([&](std::span<const std::byte> frame) { self->push(frame); }).value();
  self = network.get();
  EXPECT_TRUE(send(*network, kFrame));
  NetHeader header;
  EXPECT_EQ(receive(*network, header), kFrame);
}

}  // namespace
}  // namespace vmm::test
