#include "cli/vsock_option.h"

#include <gtest/gtest.h>

namespace vmm::cli {
namespace {

std::string complaint(const char* text) {
  const auto spec = parse_vsock(text);
  EXPECT_FALSE(spec) << text;
  return spec ? "" : spec.error().message();
}

TEST(VsockOption, AddressAndPath_areRead) {
  const auto spec = parse_vsock("cid=42,path=/tmp/v.sock");
  ASSERT_TRUE(spec);
  EXPECT_EQ(spec->cid, 42U);
  EXPECT_EQ(spec->path, "/tmp/v.sock");
  EXPECT_EQ(parse_vsock("path=v")->cid, 3U) << "the first that there is";
  EXPECT_EQ(parse_vsock("path=v,cid=0xfffffffe")->cid, 0xffff'fffeU);
}

TEST(VsockOption, Mistakes_areNamed) {
  EXPECT_NE(complaint("cid=3").find("path=FILE"), std::string::npos);
  EXPECT_NE(complaint("cid=2,path=v").find("3 is the first"), std::string::npos);
  complaint("cid=0xffffffff,path=v");
  complaint("cid=,path=v");
  complaint("cid,path=v");
  complaint("path=");
  complaint("");
  EXPECT_NE(complaint("path=v,port=5").find("'port=5'"), std::string::npos);
}

}  // namespace
}  // namespace vmm::cli
