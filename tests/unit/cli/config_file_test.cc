#include "cli/config_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace vmm::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

TEST(ConfigFile, KeysAreLongOptionNames) {
  std::vector<std::string> problems;
  const auto options = parse_config(
      R"({"kernel": "bzImage", "cpus": 2, "kaslr": true, "timeout": 1.5, "trace": ["pio", "hlt"],
          "quirk": ["a=on", "b=off"]})",
      "vm.json", problems);
  ASSERT_TRUE(options) << options.error().message();
  EXPECT_THAT(problems, IsEmpty());
  EXPECT_THAT(options->at("kernel").values, ElementsAre("bzImage"));
  EXPECT_THAT(options->at("cpus").values, ElementsAre("2"));
  EXPECT_THAT(options->at("kaslr").values, ElementsAre("true"));
  EXPECT_THAT(options->at("timeout").values, ElementsAre("1.5"));
  EXPECT_THAT(options->at("trace").values, ElementsAre("pio,hlt"));
  EXPECT_THAT(options->at("quirk").values, ElementsAre("a=on", "b=off"));
  EXPECT_EQ(options->at("kernel").origin, "vm.json: kernel");
}

TEST(ConfigFile, WrongKeysAndValuesAreNamedAllAtOnce) {
  std::vector<std::string> problems;
  ASSERT_TRUE(parse_config(R"({"mems": "1G", "kaslr": "yes", "mem": ["1G"], "cpus": null})",
                           "vm.json", problems));
  EXPECT_THAT(problems, UnorderedElementsAre("vm.json: mems: there is no such option",
                                             HasSubstr("vm.json: kaslr: it is either"),
                                             HasSubstr("vm.json: mem: a value of type array"),
                                             HasSubstr("vm.json: cpus: a value of type null")));
}

TEST(ConfigFile, DoubledKeyIsNamed) {
  std::vector<std::string> problems;
  ASSERT_TRUE(parse_config(R"({"mem": "1G", "mem": "2G"})", "vm.json", problems));
  EXPECT_THAT(problems, ElementsAre("vm.json: mem: it is there twice"));
}

TEST(ConfigFile, SyntaxErrorHasLineAndColumn) {
  std::vector<std::string> problems;
  const auto options = parse_config("{\n  \"mem\": \"1G\",\n  \"cpus\" 2\n}", "vm.json", problems);
  ASSERT_FALSE(options);
  EXPECT_THAT(options.error().message(), HasSubstr("vm.json: line 3, column 10"));
}

TEST(ConfigFile, AnythingButAnObjectIsRefused) {
  std::vector<std::string> problems;
  EXPECT_FALSE(parse_config("[1]", "vm.json", problems));
  EXPECT_FALSE(parse_config("", "vm.json", problems));
  EXPECT_FALSE(parse_config("{\"mem\": \"\xff\"}", "vm.json", problems));
}

TEST(ConfigFile, ProblemsOfValuesNameTheFileToo) {
  std::vector<std::string> problems;
  const auto options = parse_config(R"({"mem": "12Q"})", "vm.json", problems);
  ASSERT_TRUE(options);
  interpret(*options, problems);
  EXPECT_THAT(problems, ElementsAre(HasSubstr("vm.json: mem: '12Q' is not a size")));
}

TEST(ConfigFile, ReadsNoEndlessFile) {
  std::vector<std::string> problems;
  EXPECT_FALSE(read_config_file("/dev/zero", problems));
  EXPECT_FALSE(read_config_file("/", problems));
}

}  // namespace
}  // namespace vmm::cli
