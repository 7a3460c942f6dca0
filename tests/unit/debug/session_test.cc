#include "vmm/debug/session.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/le.h"
#include "tests/support/fakes/debug_target.h"
#include "vmm/x86/msr_numbers.h"

namespace vmm::debug {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

class DebugSession : public testing::Test {
 protected:
  void SetUp() override {
    layout.components[2] = {576, 256, false};
    layout.components[9] = {832, 8, false};
  }

  // What the session answers, without acknowledgements.
  std::string ask(std::string_view payload) {
    session.receive(test::frame_request(payload));
    return answers();
  }
  std::string answers() {
    std::string text;
    PacketReader reader;
    const std::string output = session.take_output();
    // Run lengths are an answer's only, so they are undone first.
    const std::string plain = test::decode_payload(output);
    for (std::size_t at = plain.find('$'); at != std::string::npos; at = plain.find('$', at + 1)) {
      if (!text.empty()) text += "|";
      text += plain.substr(at + 1, plain.find('#', at) - at - 1);
    }
    return text;
  }
  void attach() {
    ask("?");
    target.log.clear();
  }

  test::FakeDebugTarget target{2};
  SessionSettings settings;
  completion::XsaveLayout layout{};
  Session session{target, settings, layout};
};

TEST_F(DebugSession, FirstPacketStopsTheGuest) {
  EXPECT_TRUE(session.guest_runs());
  EXPECT_THAT(ask("?"), StartsWith("T02"));
  EXPECT_THAT(target.log, ElementsAre("interrupt"));
  EXPECT_FALSE(session.guest_runs());
}

TEST_F(DebugSession, ConnectionAloneStopsNothing) {
  session.receive("+++garbage");
  EXPECT_TRUE(target.log.empty());
}

TEST_F(DebugSession, PacketsAreAcknowledgedUntilThatIsSwitchedOff) {
  session.receive("$QStartNoAckMode#b0");
  EXPECT_EQ(session.take_output(), "+$OK#9a");
  session.receive(test::frame_request("vMustReplyEmpty"));
  EXPECT_EQ(session.take_output(), "$#00");
}

TEST_F(DebugSession, BadPacketIsAskedForAgainAndAnAnswerRepeated) {
  session.receive("$?#00");
  EXPECT_EQ(session.take_output(), "-");
  session.receive(test::frame_request("qC"));
  const std::string answer = session.take_output().substr(1);
  session.receive("-");
  EXPECT_EQ(session.take_output(), answer);
}

TEST_F(DebugSession, FeaturesAreTold) {
  const std::string answer = ask("qSupported:swbreak+;hwbreak+");
  EXPECT_THAT(answer, HasSubstr("QStartNoAckMode+"));
  EXPECT_THAT(answer, HasSubstr("qXfer:features:read+"));
  EXPECT_THAT(answer, HasSubstr("qXfer:memory-map:read+"));
}

TEST_F(DebugSession, CpusAreThreadsFromOne) {
  EXPECT_EQ(ask("qfThreadInfo"), "m1,2");
  EXPECT_EQ(ask("qsThreadInfo"), "l");
  EXPECT_EQ(ask("qC"), "QC1");
  EXPECT_EQ(ask("qThreadExtraInfo,2"), to_hex("CPU 1 [halted]"));
  EXPECT_EQ(ask("T2"), "OK");
  EXPECT_EQ(ask("T3"), "E16");
  EXPECT_EQ(ask("Hg3"), "E16");
}

TEST_F(DebugSession, RegistersAreThoseOfTheChosenThread) {
  attach();
  target.states[1].general.gpr[x86::kRax] = 0x1122334455667788;
  EXPECT_EQ(ask("Hg2"), "OK");
  EXPECT_EQ(ask("p0"), "8877665544332211");
  EXPECT_THAT(ask("g"), StartsWith("8877665544332211"));
}

TEST_F(DebugSession, RegisterIsWritten) {
  attach();
  EXPECT_EQ(ask("P0=8877665544332211"), "OK");
  EXPECT_EQ(target.states[0].general.gpr[x86::kRax], 0x1122334455667788U);
  EXPECT_EQ(ask("P0=88"), "E16");
  EXPECT_EQ(ask("Pffff=00"), "E16");
  EXPECT_EQ(ask("pffff"), "E16");
}

// It counts on between what a debugger sees and what it writes.
class TimeStampCounter : public DebugSession {
 protected:
  void SetUp() override {
    DebugSession::SetUp();
    for (std::size_t i = 0; i < kNamedMsrs.size(); ++i) {
      if (kNamedMsrs[i].index == x86::kMsrTsc) number_ = i;
    }
    tsc() = kSeen;
    attach();
    ask("g");
    tsc() = kNow;
  }
  std::optional<std::uint64_t>& tsc() { return target.states[0].msrs[number_]; }
  static constexpr std::uint64_t kSeen = 1'000'000'000, kNow = 1'000'500'000;

 private:
  std::size_t number_ = 0;
};

TEST_F(TimeStampCounter, IsLeftWhenAnotherRegisterIsWritten) {
  EXPECT_EQ(ask("P0=8877665544332211"), "OK");
  EXPECT_EQ(tsc(), kNow);
}

TEST_F(TimeStampCounter, IsLeftWhenAllAreWrittenBack) {
  EXPECT_EQ(ask("G" + ask("g")), "OK");
  EXPECT_EQ(tsc(), kNow);
}

TEST_F(TimeStampCounter, IsLeftByAStepFromAnAddress) {
  ask("s1000");
  EXPECT_EQ(tsc(), kNow);
}

TEST_F(TimeStampCounter, IsWrittenByName_alsoALittleBack) {
  std::string seen(sizeof kSeen, '\0');
  store_le(std::as_writable_bytes(std::span(seen)), kSeen);
  unsigned named = 0;
  while (ask(fmt::format("p{:x}", named)) != to_hex(seen)) ASSERT_LT(++named, 1000U);
  EXPECT_EQ(ask(fmt::format("P{:x}=0100000000000000", named)), "OK");
  EXPECT_EQ(tsc(), 1U);
}

TEST_F(DebugSession, AllRegistersWrittenBackChangeNothing) {
  target.states[0].general.gpr[x86::kR15] = 42;
  target.states[0].msrs[0] = 7;
  attach();
  const CpuState before = target.states[0];
  ask("Hg1");
  EXPECT_EQ(ask("G" + ask("g")), "OK");
  EXPECT_EQ(target.states[0].general, before.general);
  EXPECT_EQ(target.states[0].system, before.system);
  EXPECT_EQ(target.states[0].xsave, before.xsave);
  EXPECT_EQ(target.states[0].msrs, before.msrs);
}

TEST_F(DebugSession, MemoryIsReadInBothForms) {
  attach();
  target.memory.replace(0, 4, "a#$}");
  EXPECT_EQ(ask("m1000,2"), "6123");
  session.receive(test::frame_request("x1000,4"));
  EXPECT_THAT(session.take_output(), HasSubstr("$ba}\x03}\x04}]#"));
  EXPECT_EQ(ask("m10fe,4"), "6d6d");  // as much as there is
  EXPECT_EQ(ask("m2000,4"), "E0e");
  EXPECT_EQ(ask("m1000"), "E16");
}

TEST_F(DebugSession, MemoryIsWrittenInBothForms) {
  attach();
  EXPECT_EQ(ask("M1000,2:4142"), "OK");
  EXPECT_EQ(ask("X1002,2:C}"), "OK");
  EXPECT_EQ(target.memory.substr(0, 4), "ABC}");
  EXPECT_EQ(ask("X0,0:"), "OK");  // how gdb finds out whether there is X
  EXPECT_EQ(ask("M1000,3:4142"), "E16");
  EXPECT_EQ(ask("M10ff,2:4142"), "E.nothing there");
}

TEST_F(DebugSession, HugeReadIsAnsweredInPart) {
  attach();
  const std::string answer = ask("m1000,ffffffffffffffff");
  EXPECT_EQ(answer.size(), 512U);
}

TEST_F(DebugSession, PhysicalMemoryOnRequest) {
  attach();
  EXPECT_EQ(ask("qqemu.PhyMemMode"), "0");
  EXPECT_EQ(ask("Qqemu.PhyMemMode:1"), "OK");
  EXPECT_EQ(ask("qqemu.PhyMemMode"), "1");
  ask("m1000,1");
  EXPECT_THAT(target.log, ElementsAre("read physical 0x1000 1"));
  EXPECT_THAT(ask("qXfer:memory-map:read::0,1000"), HasSubstr("start=\"0x1000\""));
}

TEST_F(DebugSession, MemoryMapOfVirtualAddressesIsEverything) {
  EXPECT_THAT(ask("qXfer:memory-map:read::0,1000"), HasSubstr("0xffffffffffffffff"));
}

TEST_F(DebugSession, DescriptionComesInPieces) {
  const std::string first = ask("qXfer:features:read:target.xml:0,20");
  EXPECT_EQ(first, "m<?xml version=\"1.0\"?><!DOCTYPE t");
  EXPECT_EQ(ask("qXfer:features:read:target.xml:ffffff,20"), "l");
  EXPECT_EQ(ask("qXfer:features:read:other.xml:0,20"), "E00");
  EXPECT_EQ(ask("qXfer:features:read:target.xml:x"), "E16");
}

TEST_F(DebugSession, BreakpointsAreHandedOn) {
  attach();
  EXPECT_EQ(ask("Z0,401000,1"), "OK");
  EXPECT_EQ(ask("Z1,401000,1"), "OK");
  EXPECT_EQ(ask("Z2,5000,8"), "OK");
  EXPECT_EQ(ask("z2,5000,8"), "OK");
  EXPECT_THAT(target.log, ElementsAre("insert 0 0x401000 1", "insert 1 0x401000 1",
                                      "insert 2 0x5000 8", "remove 2 0x5000 8"));
  EXPECT_EQ(ask("Z5,0,1"), "");
  EXPECT_EQ(ask("Z0,zz,1"), "E16");
}

TEST_F(DebugSession, ConditionsAreUnderstood) {
  attach();
  EXPECT_THAT(ask("qSupported"), HasSubstr("ConditionalBreakpoints+"));
  target.states[0].general.gpr[x86::kRax] = 5;
  // "$rax == 5", and "$rax == 6" behind it: reg 0; const8; equal; end.
  EXPECT_EQ(ask("Z0,401000,1;X7,26000022051327X7,26000022061327"), "OK");
  EXPECT_EQ(ask("Z1,401000,1;X7,26000022061327"), "OK");
  // What cannot be evaluated stops.
  EXPECT_EQ(ask("Z1,401008,1;X2,ff27;X4,22001727"), "OK");
  EXPECT_THAT(target.log, ElementsAre("insert 0 0x401000 1", "conditions 0 0x401000 1 yes no",
                                      "insert 1 0x401000 1", "conditions 1 0x401000 1 no",
                                      "insert 1 0x401008 1", "read virtual 0x0 1",
                                      "conditions 1 0x401008 1 yes yes"));
}

// A CPU that judges by itself has not looked at all of its registers: what needs the others is for
// somebody who has.
TEST_F(DebugSession, ConditionsThatNeedMoreRegistersHold) {
  attach();
  target.basic_registers_only = true;
  const RegisterMap map(Architecture::kX86_64, layout);
  const auto false_of = [&](std::string_view name) {  // reg N; const8 0; bit_and; end
    return "Z0,401000,1;X7,26" + to_hex({"\0", 1}) +
           to_hex(std::string(1, static_cast<char>(*map.find(name)))) + "22000f27";
  };
  EXPECT_EQ(ask(false_of("rbx")), "OK");
  EXPECT_EQ(ask(false_of("mxcsr")), "OK");
  EXPECT_THAT(target.log, ElementsAre("insert 0 0x401000 1", "conditions 0 0x401000 1 no",
                                      "insert 0 0x401000 1", "conditions 0 0x401000 1 yes"));
}

TEST_F(DebugSession, StopIsToldWithWhatTheCpuHadAtHand) {
  attach();
  ask("vCont;s:1");
  StopState state{target.states[0].general, target.states[0].system};
  state.general.rip = 0x1234;
  session.on_stop({.kind = StopKind::kStep, .cpu = 0, .state = state});
  EXPECT_THAT(answers(), HasSubstr("10:3412000000000000"));
  // Who asks later gets what is there then.
  target.states[0].general.rip = 0x5678;
  EXPECT_THAT(ask("?"), HasSubstr("10:7856000000000000"));
}

TEST_F(DebugSession, MalformedConditionsAreRefused) {
  attach();
  for (const char* bad : {"Z0,401000,1;", "Z0,401000,1;X", "Z0,401000,1;X7", "Z0,401000,1;X7,26",
                          "Z0,401000,1;Xffffffffffffffff,26", "Z0,401000,1;X1,zz",
                          "Z0,401000,1;cmds:0,X1,27", "Z0,401000,1X1,27x"}) {
    EXPECT_EQ(ask(bad), "E16") << bad;
  }
  EXPECT_TRUE(target.log.empty());
}

TEST_F(DebugSession, RefusedBreakpointSaysWhy) {
  attach();
  target.refusal = Error(ErrorCode::kUnsupported, "not on this host");
  EXPECT_EQ(ask("Z2,5000,8"), "E.not on this host");
}

TEST_F(DebugSession, ContinueIsAnsweredByTheNextStop) {
  attach();
  EXPECT_EQ(ask("vCont;c"), "");
  EXPECT_TRUE(session.guest_runs());
  EXPECT_EQ(target.actions[0].kind, ResumeAction::Kind::kContinue);
  EXPECT_EQ(target.actions[1].kind, ResumeAction::Kind::kContinue);
  ask("qSupported:swbreak+");
  session.on_stop({.kind = StopKind::kSoftwareBreakpoint, .cpu = 1});
  const std::string stop = answers();
  EXPECT_THAT(stop, StartsWith("T05"));
  EXPECT_THAT(stop, HasSubstr("thread:2;"));
  EXPECT_EQ(ask("qC"), "QC2");
}

TEST_F(DebugSession, StopsNameTheirCause) {
  ask("qSupported:swbreak+;hwbreak+");
  attach();
  ask("c");
  session.on_stop({.kind = StopKind::kHardwareBreakpoint});
  EXPECT_THAT(answers(), HasSubstr("hwbreak:;"));
  ask("c");
  session.on_stop({.kind = StopKind::kSoftwareBreakpoint});
  EXPECT_THAT(answers(), HasSubstr("swbreak:;"));
  ask("c");
  session.on_stop({.kind = StopKind::kWriteWatch, .address = 0x5000});
  EXPECT_THAT(answers(), HasSubstr("watch:5000;"));
  ask("c");
  session.on_stop({.kind = StopKind::kAccessWatch, .address = 0x5000});
  EXPECT_THAT(answers(), HasSubstr("awatch:5000;"));
}

TEST_F(DebugSession, LeftmostActionDecidesForAThread) {
  attach();
  ask("vCont;s:2;c");
  EXPECT_EQ(target.actions[0].kind, ResumeAction::Kind::kContinue);
  EXPECT_EQ(target.actions[1].kind, ResumeAction::Kind::kStep);
}

TEST_F(DebugSession, UnnamedThreadStays) {
  attach();
  ask("vCont;S05:1");
  EXPECT_EQ(target.actions[0].kind, ResumeAction::Kind::kStep);
  EXPECT_EQ(target.actions[1].kind, ResumeAction::Kind::kStay);
}

TEST_F(DebugSession, RangeIsSteppedThrough) {
  attach();
  ask("vCont;r1000,1010:1;c");
  EXPECT_EQ(target.actions[0].kind, ResumeAction::Kind::kStepRange);
  EXPECT_EQ(target.actions[0].begin, 0x1000U);
  EXPECT_EQ(target.actions[0].end, 0x1010U);
}

TEST_F(DebugSession, AddressToGoOnFromIsLinear) {
  attach();
  EXPECT_EQ(ask("s1234"), "");
  EXPECT_EQ(target.states[0].general.rip, 0x1234U);
  session.on_stop({.kind = StopKind::kStep});
  answers();
  target.states[0].system.efer = 0;
  target.states[0].system.cs.base = 0x1000;
  EXPECT_EQ(ask("c1234"), "");
  EXPECT_EQ(target.states[0].general.rip, 0x234U);
}

TEST_F(DebugSession, MalformedResumeIsRefused) {
  attach();
  EXPECT_EQ(ask("vCont;"), "E16");
  EXPECT_EQ(ask("vCont;q"), "E16");
  EXPECT_EQ(ask("vCont;c:9"), "E16");
  EXPECT_EQ(ask("vCont;r1000"), "E16");
  EXPECT_TRUE(target.log.empty());
}

TEST_F(DebugSession, RefusedResumeLeavesTheGuestStopped) {
  attach();
  target.refusal = Error(ErrorCode::kUnsupported, "user code");
  EXPECT_EQ(ask("vCont;s:1"), "E.user code");
  EXPECT_FALSE(session.guest_runs());
  EXPECT_EQ(ask("qC"), "QC1");
}

TEST_F(DebugSession, ControlCStopsARunningGuest) {
  attach();
  ask("c");
  session.receive("\x03");
  EXPECT_THAT(answers(), StartsWith("T02"));
  target.log.clear();
  session.receive("\x03");  // it stands already
  EXPECT_EQ(answers(), "");
  EXPECT_TRUE(target.log.empty());
}

TEST_F(DebugSession, PacketsWhileTheGuestRunsAreRefused) {
  attach();
  ask("c");
  EXPECT_EQ(ask("g"), "E10");
}

TEST_F(DebugSession, DetachIsAnsweredAndEnds) {
  attach();
  EXPECT_EQ(ask("D"), "OK");
  EXPECT_TRUE(session.ended());
  EXPECT_THAT(target.log, ElementsAre("detach"));
  EXPECT_EQ(ask("g"), "");
}

TEST_F(DebugSession, KillEndsTheGuest) {
  attach();
  EXPECT_EQ(ask("vKill;1"), "OK");
  EXPECT_THAT(target.log, ElementsAre("kill"));
}

TEST_F(DebugSession, EndOfTheGuestIsTold) {
  attach();
  ask("c");
  session.on_end(18);
  EXPECT_EQ(answers(), "W12");
  EXPECT_TRUE(session.ended());
}

TEST_F(DebugSession, CrashIsToldInWords) {
  attach();
  ask("c");
  session.on_stop({.kind = StopKind::kCrashed, .note = "triple fault"});
  const std::string said = answers();
  EXPECT_THAT(said, StartsWith("O" + to_hex("triple fault\n") + "|T06"));
}

TEST_F(DebugSession, MonitorCommandIsAnsweredInText) {
  EXPECT_EQ(ask("qRcmd," + to_hex("info mem")), "O" + to_hex("CPU 0: info mem\n") + "|OK");
  EXPECT_EQ(ask("qRcmd,0"), "E16");
}

TEST_F(DebugSession, ArchitectureIsForTheNextConnection) {
  EXPECT_THAT(ask("qRcmd," + to_hex("arch i8086")), HasSubstr("OK"));
  EXPECT_EQ(settings.architecture, Architecture::kI8086);
  Session next(target, settings, layout);
  next.receive(test::frame_request("qXfer:features:read:target.xml:0,fff"));
  EXPECT_THAT(test::decode_payload(next.take_output()), HasSubstr("<architecture>i8086<"));
}

TEST_F(DebugSession, KernelOffsetIsToldWhenItIsKnown) {
  EXPECT_EQ(ask("qOffsets"), "");
  target.offset = 0x1000000;
  EXPECT_EQ(ask("qOffsets"), "Text=1000000;Data=1000000;Bss=1000000");
  target.segments = {.text = 0xffffffff81000000, .data = 0xffffffff81c00000};
  EXPECT_EQ(ask("qOffsets"), "TextSeg=ffffffff82000000;DataSeg=ffffffff82c00000");
}

TEST_F(DebugSession, UnknownPacketsAreAnsweredEmpty) {
  for (const std::string_view packet : {"R00", "bx", "!", "qTStatus", "vAttach;1", "QNonStop:1"}) {
    EXPECT_EQ(ask(packet), "") << packet;
  }
}

TEST_F(DebugSession, MachineThatDoesNotComeIsAnError) {
  target.refusal = Error(ErrorCode::kBadState, "being started");
  EXPECT_EQ(ask("?"), "E.being started");
  EXPECT_THAT(ask("?"), StartsWith("T02"));
}

TEST_F(DebugSession, GuestGoesBack) {
  EXPECT_THAT(ask("qSupported"), HasSubstr("ReverseStep+;ReverseContinue+"));
  attach();
  EXPECT_EQ(ask("bs"), "");
  EXPECT_TRUE(session.guest_runs());
  session.on_stop({.kind = StopKind::kStep});
  EXPECT_THAT(answers(), StartsWith("T05"));
  EXPECT_EQ(ask("bc"), "");
  session.on_stop({.kind = StopKind::kHistoryBegin});
  EXPECT_THAT(answers(), AllOf(StartsWith("T05"), HasSubstr("replaylog:begin;")));
  EXPECT_THAT(target.log, ElementsAre("step back", "continue back"));
}

TEST_F(DebugSession, EndOfWhatIsRecordedIsTold) {
  attach();
  ask("vCont;c");
  session.on_stop({.kind = StopKind::kHistoryEnd, .note = "here"});
  EXPECT_THAT(answers(), AllOf(HasSubstr("O68657265"), HasSubstr("replaylog:end;")));
}

TEST_F(DebugSession, GuestThatCannotGoBackStands) {
  attach();
  target.refusal = Error(ErrorCode::kUnsupported, "two CPUs");
  EXPECT_EQ(ask("bc"), "E.two CPUs");
  EXPECT_FALSE(session.guest_runs());
  EXPECT_EQ(ask("bx"), "");
  EXPECT_FALSE(session.guest_runs());
}

}  // namespace
}  // namespace vmm::debug
