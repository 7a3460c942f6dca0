#include "cli/restore_memory_option.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace vmm::cli {
namespace {

using testing::HasSubstr;

std::string refusal(std::string_view text) {
  const auto memory = parse_restore_memory(text);
  return memory ? "accepted" : memory.error().message();
}

TEST(RestoreMemoryOption, Words_areRead) {
  EXPECT_FALSE(parse_restore_memory("mapped")->faulted);
  const auto plain = parse_restore_memory("userfaultfd");
  ASSERT_TRUE(plain);
  EXPECT_TRUE(plain->faulted);
  EXPECT_EQ(plain->record + plain->prefetch, "");
  const auto all = parse_restore_memory("userfaultfd,record=/tmp/a=b,prefetch=c");
  ASSERT_TRUE(all);
  EXPECT_EQ(all->record, "/tmp/a=b");
  EXPECT_EQ(all->prefetch, "c");
}

TEST(RestoreMemoryOption, Mistakes_areNamed) {
  EXPECT_THAT(refusal(""), HasSubstr("mapped, userfaultfd"));
  EXPECT_THAT(refusal("lazy"), HasSubstr("'lazy'"));
  EXPECT_THAT(refusal("userfaultfd,reocrd=a"), HasSubstr("'reocrd=a'"));
  EXPECT_THAT(refusal("userfaultfd,record"), HasSubstr("record=FILE"));
  EXPECT_THAT(refusal("userfaultfd,record="), HasSubstr("name of a file"));
  EXPECT_THAT(refusal("mapped,record=a"), HasSubstr("behind userfaultfd"));
}

}  // namespace
}  // namespace vmm::cli
