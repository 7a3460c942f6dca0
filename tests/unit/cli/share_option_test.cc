#include "cli/share_option.h"

#include <gtest/gtest.h>

namespace vmm::cli {
namespace {

std::string complaint(const std::string& text) {
  const auto spec = parse_share(text);
  EXPECT_FALSE(spec) << text;
  return spec ? "" : spec.error().message();
}

TEST(ShareOption, DirectoryAndTag_areRead) {
  const auto spec = parse_share("/srv/a:b:home");
  ASSERT_TRUE(spec);
  EXPECT_EQ(spec->directory, "/srv/a:b");
  EXPECT_EQ(spec->tag, "home");
  EXPECT_FALSE(spec->read_only);
  EXPECT_TRUE(parse_share("/srv:home,ro")->read_only);
}

TEST(ShareOption, Keys_areRead) {
  const auto spec = parse_share("tag=home,path=/srv,ro");
  ASSERT_TRUE(spec);
  EXPECT_EQ(spec->directory, "/srv");
  EXPECT_EQ(spec->tag, "home");
  EXPECT_TRUE(spec->read_only);
  EXPECT_EQ(parse_share("socket=/run/fs.sock,tag=x")->socket, "/run/fs.sock");
}

TEST(ShareOption, Mistakes_areNamed) {
  EXPECT_NE(complaint("/srv").find("DIRECTORY:TAG"), std::string::npos);
  EXPECT_NE(complaint("path=/srv,socket=s,tag=x").find("either"), std::string::npos);
  EXPECT_NE(complaint("socket=s,tag=x,ro").find("already decides"), std::string::npos);
  EXPECT_NE(complaint("path=/srv,tag=x,rw").find("'rw'"), std::string::npos);
  EXPECT_NE(complaint("/srv:" + std::string(37, 'x')).find("1 to 36"), std::string::npos);
  complaint("path=/srv");
  complaint(":tag");
  complaint("/srv:");
  complaint("");
}

}  // namespace
}  // namespace vmm::cli
