// What a test says about a guest, in GoogleMock's words.
//
//   EXPECT_THAT(stop, ExitedWith(0));
//   EXPECT_THAT(console(), ConsoleContains("ready"));
//   EXPECT_THAT(vm(), HasRegister(vmm::x86::kRax, 42));
//   EXPECT_THAT(vm(), MemoryAt<std::uint32_t>(vmm::Gpa(0x2000), Gt(7)));
//   EXPECT_THAT(vm(), NoUnclaimedAccess());
//
// Matchers of a Vm look at CPU 0, and want the guest to stand still.
#pragma once

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <cstdint>
#include <ostream>
#include <string>
#include <string_view>
#include <utility>

#include "devices/capture_sink.h"
#include "vmm/vm.h"

namespace vmm {

// What GoogleTest prints of it, found by its namespace; a StopInfo prints itself.
inline void PrintTo(const Vm& vm, std::ostream* out) {
  const auto registers = vm.registers(VcpuId{0});
  *out << "a machine";
  if (registers) *out << fmt::format(" at RIP {:#x}", registers->rip);
}

namespace testing {

// What ConsoleContains() looks into.
inline std::string console_text(std::string_view text) { return std::string(text); }
inline std::string console_text(const CaptureSink& sink) { return sink.text(); }
inline std::string console_text(const UntilResult& result) { return result.console; }

// The last lines of a text, for messages.
inline std::string_view text_tail(std::string_view text, std::size_t most = 2000) {
  return text.size() <= most ? text : text.substr(text.size() - most);
}

// Of a StopInfo: the guest wrote this value to the debug-exit port.
MATCHER_P(ExitedWith, value,
          fmt::format("{} with the value {}", negation ? "did not exit" : "exited",
                      ::testing::PrintToString(value))) {
  return arg.reason == StopReason::kDebugExit &&
         ::testing::ExplainMatchResult(value, arg.value, result_listener);
}

// Of a StopInfo: it stopped for this reason.
MATCHER_P(StoppedBy, reason,
          fmt::format("{} by {}", negation ? "was not stopped" : "was stopped",
                      to_string(reason))) {
  return arg.reason == reason;
}

// Of a text, a CaptureSink or an UntilResult. A message shows the end of the console.
MATCHER_P(ConsoleContains, text,
          fmt::format("a console that {} \"{}\"", negation ? "does not contain" : "contains",
                      std::string_view(text))) {
  const std::string console = console_text(arg);
  *result_listener << "which ends with:\n" << text_tail(console);
  return console.find(text) != std::string::npos;
}

// Of a Vm: a general register, by its number in x86::Gpr.
MATCHER_P2(HasRegister, number, matcher,
           fmt::format("{} register {} {}", negation ? "has no" : "has a", static_cast<int>(number),
                       ::testing::DescribeMatcher<std::uint64_t>(matcher))) {
  const auto registers = arg.registers(VcpuId{0});
  if (!registers) {
    *result_listener << registers.error().message();
    return false;
  }
  const std::uint64_t value = registers->gpr[number];
  *result_listener << fmt::format("which is {:#x} ", value);
  return ::testing::ExplainMatchResult(matcher, value, result_listener);
}

// Of a Vm: where the CPU is.
MATCHER_P(HasRip, matcher,
          fmt::format("{} RIP that {}", negation ? "has no" : "has a",
                      ::testing::DescribeMatcher<std::uint64_t>(matcher))) {
  const auto registers = arg.registers(VcpuId{0});
  if (!registers) {
    *result_listener << registers.error().message();
    return false;
  }
  *result_listener << fmt::format("which is {:#x} ", registers->rip);
  return ::testing::ExplainMatchResult(matcher, registers->rip, result_listener);
}

template <typename T, typename Inner>
class MemoryAtMatcher {
 public:
  MemoryAtMatcher(Gpa address, Inner inner) : address_(address), inner_(std::move(inner)) {}

  bool MatchAndExplain(const Vm& vm, ::testing::MatchResultListener* listener) const {
    const auto value = vm.memory().read<T>(address_);
    if (!value) {
      *listener << value.error().message();
      return false;
    }
    *listener << "where there is " << ::testing::PrintToString(*value) << " ";
    return ::testing::ExplainMatchResult(inner_, *value, listener);
  }
  void DescribeTo(std::ostream* out) const { describe(out, "has"); }
  void DescribeNegationTo(std::ostream* out) const { describe(out, "does not have"); }

 private:
  void describe(std::ostream* out, std::string_view verb) const {
    *out << verb << fmt::format(" at GPA {:#x} what ", address_.value)
         << ::testing::DescribeMatcher<T>(inner_);
  }

  Gpa address_;
  Inner inner_;
};

// Of a Vm: a little-endian value in guest-physical memory.
template <typename T, typename Inner>
auto MemoryAt(Gpa address, Inner inner) {
  return ::testing::MakePolymorphicMatcher(MemoryAtMatcher<T, Inner>(address, std::move(inner)));
}

// Of a Vm: every access found a device. A message names the places.
MATCHER(NoUnclaimedAccess,
        negation ? "has accesses that nobody answered" : "has no access that nobody answered") {
  const VmStats stats = arg.stats();
  if (stats.unclaimed == 0) return true;
  *result_listener << "with " << stats.unclaimed << " of them:";
  for (const AccessStats& access : stats.accesses) {
    if (!access.device.empty() || access.kind == "msr") continue;
    *result_listener << fmt::format(" {} {} {:#x} ({} times)", access.kind,
                                    access.is_write ? "write" : "read", access.address,
                                    access.count);
  }
  return false;
}

}  // namespace testing
}  // namespace vmm
