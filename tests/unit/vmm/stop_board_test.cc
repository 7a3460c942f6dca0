#include "vmm/stop_board.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace vmm {
namespace {

using std::chrono::steady_clock;

StopInfo stop_of(StopReason reason, std::uint32_t value = 0) {
  StopInfo info;
  info.reason = reason;
  info.value = value;
  return info;
}

StopReason reason_of(const StopBoard::Stop& stop) { return std::get<StopInfo>(stop).reason; }

TEST(StopBoard, EmptyBoardAnswersWhenTheTimeIsUp) {
  StopBoard board;
  EXPECT_FALSE(board.posted());
  EXPECT_FALSE(board.wait(steady_clock::now() - std::chrono::seconds(1)));
  EXPECT_FALSE(board.wait(steady_clock::now() + std::chrono::milliseconds(1)));
}

TEST(StopBoard, FirstPostWins) {
  StopBoard board;
  board.post(stop_of(StopReason::kDebugExit, 7));
  board.post(stop_of(StopReason::kReset));
  board.post(Error(ErrorCode::kIo, "too late"));
  const auto stop = board.wait(std::nullopt);
  ASSERT_TRUE(stop);
  EXPECT_EQ(reason_of(*stop), StopReason::kDebugExit);
  EXPECT_EQ(std::get<StopInfo>(*stop).value, 7U);
}

TEST(StopBoard, PostStaysOnTheBoard) {
  StopBoard board;
  board.post(stop_of(StopReason::kPowerOff));
  EXPECT_TRUE(board.wait(std::nullopt));
  EXPECT_TRUE(board.wait(std::nullopt));
  EXPECT_TRUE(board.posted());
}

TEST(StopBoard, HostErrorIsAStopToo) {
  StopBoard board;
  board.post(Error(ErrorCode::kIo, "KVM_RUN on vCPU 0"));
  const auto stop = board.wait(std::nullopt);
  ASSERT_TRUE(stop);
  EXPECT_TRUE(std::holds_alternative<Error>(*stop));
}

TEST(StopBoard, CancellationCanBeTakenBack) {
  StopBoard board;
  board.post(stop_of(StopReason::kCancelled));
  board.clear_cancelled();
  EXPECT_FALSE(board.posted());
  board.post(stop_of(StopReason::kPowerOff));
  EXPECT_EQ(reason_of(*board.wait(std::nullopt)), StopReason::kPowerOff);
}

TEST(StopBoard, WhatTheGuestDidCannotBeTakenBack) {
  StopBoard board;
  board.clear_cancelled();
  board.post(stop_of(StopReason::kTripleFault));
  board.clear_cancelled();
  EXPECT_TRUE(board.posted());
  EXPECT_EQ(reason_of(*board.wait(std::nullopt)), StopReason::kTripleFault);
}

TEST(StopBoard, PostWakesAWaiter) {
  StopBoard board;
  std::thread poster([&board] { board.post(stop_of(StopReason::kHalted)); });
  const auto stop = board.wait(std::nullopt);
  poster.join();
  ASSERT_TRUE(stop);
  EXPECT_EQ(reason_of(*stop), StopReason::kHalted);
}

// Whoever of several is first, all waiters see the same stop.
TEST(StopBoard, NoticeEndsOneWaitAndStopsNothing) {
  StopBoard board;
  board.notice();
  EXPECT_FALSE(board.wait(std::nullopt));
  EXPECT_FALSE(board.posted());
  std::jthread other([&board] { board.notice(); });
  EXPECT_FALSE(board.wait(std::nullopt));
  board.notice();
  board.post(stop_of(StopReason::kReset));
  EXPECT_TRUE(board.wait(std::nullopt));
}

TEST(StopBoard, AllWaitersSeeTheSameStop) {
  StopBoard board;
  std::vector<std::thread> threads;
  std::array<std::uint32_t, 3> seen{};
  for (std::uint32_t& value : seen) {
    threads.emplace_back(
        [&board, &value] { value = std::get<StopInfo>(*board.wait(std::nullopt)).value; });
  }
  for (std::uint32_t value = 1; value <= 3; ++value) {
    threads.emplace_back([&board, value] { board.post(stop_of(StopReason::kDebugExit, value)); });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_NE(seen[0], 0U);
  EXPECT_EQ(seen[0], seen[1]);
  EXPECT_EQ(seen[0], seen[2]);
}

TEST(StopBoard, Untold_isWhatNobodyWasToldOf) {
  StopBoard board;
  EXPECT_FALSE(board.untold());
  board.post(stop_of(StopReason::kDebugExit, 1));
  EXPECT_TRUE(board.untold());
  board.mark_told();
  EXPECT_FALSE(board.untold());
  EXPECT_TRUE(board.posted()) << "a guest that is over stays so";
}

TEST(StopBoard, Reset_makesRoomForAnotherStop) {
  StopBoard board;
  board.post(stop_of(StopReason::kDebugExit, 1));
  board.mark_told();
  board.reset(std::nullopt);
  EXPECT_FALSE(board.posted());
  board.post(stop_of(StopReason::kDebugExit, 2));
  ASSERT_TRUE(board.untold());
  EXPECT_EQ(std::get<StopInfo>(*board.untold()).value, 2U);
}

}  // namespace
}  // namespace vmm
