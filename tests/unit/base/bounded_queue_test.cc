#include "base/bounded_queue.h"

#include <gtest/gtest.h>

namespace vmm {
namespace {

TEST(BoundedQueue, KeepsOrderAcrossTheWrap) {
  BoundedQueue<int, 3> queue;
  EXPECT_TRUE(queue.push(1));
  EXPECT_TRUE(queue.push(2));
  EXPECT_EQ(queue.pop(), 1);
  EXPECT_TRUE(queue.push(3));
  EXPECT_TRUE(queue.push(4));
  EXPECT_EQ(queue.pop(), 2);
  EXPECT_EQ(queue.pop(), 3);
  EXPECT_EQ(queue.pop(), 4);
  EXPECT_EQ(queue.pop(), std::nullopt);
}

TEST(BoundedQueue, RefusesWhatDoesNotFit) {
  BoundedQueue<int, 2> queue;
  EXPECT_TRUE(queue.push(1));
  EXPECT_TRUE(queue.push(2));
  EXPECT_FALSE(queue.push(3));
  EXPECT_EQ(queue.size(), 2U);
}

TEST(BoundedQueue, EqualityIgnoresWhereTheRingStarts) {
  BoundedQueue<int, 2> a;
  BoundedQueue<int, 2> b;
  a.push(7);
  a.pop();
  a.push(5);
  b.push(5);
  EXPECT_EQ(a, b);
}

}  // namespace
}  // namespace vmm
