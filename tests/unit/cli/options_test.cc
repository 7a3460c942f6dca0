#include "cli/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "cli/exit_code.h"
#include "cli/option_values.h"
#include "cli/test_process.h"

namespace vmm::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// The request of a `vmm run` that is sound; a failed expectation and a default one otherwise.
RunRequest run(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "run");
  Command command = parse_command_line(arguments);
  if (auto* const run = std::get_if<RunCommand>(&command)) return run->request;
  ADD_FAILURE() << std::get<PrintOnly>(command).text;
  return {};
}

// What a command line is answered with that is not carried out.
PrintOnly refused(const std::vector<std::string>& arguments) {
  Command command = parse_command_line(arguments);
  if (auto* const print = std::get_if<PrintOnly>(&command)) return *print;
  ADD_FAILURE() << "was accepted";
  return {};
}

TEST(Options, DefaultsAreTheBuiltInGuestOnStdio) {
  const RunRequest request = run({});
  EXPECT_TRUE(std::holds_alternative<BuiltinGuest>(request.config.boot));
  EXPECT_TRUE(std::holds_alternative<StreamConsole>(request.serial));
  EXPECT_EQ(request.config.memory.size, MiB(512));
  EXPECT_EQ(request.config.cpus.count, 1U);
  EXPECT_EQ(request.config.debug_exit_port, std::uint16_t{0xf4});
  EXPECT_FALSE(request.no_reboot);
  EXPECT_FALSE(request.timeout);
}

TEST(Options, MachineIsRead) {
  const VmConfig config =
      run({"--mem", "1.5G", "--mem-backing=memfd", "--thp", "--mem-prealloc", "--cpus", "4",
           "--cpu", "host,-avx512f,+x2apic", "--irqchip", "split", "--quirk", "syscall-fixup=off",
           "--quirk", "unpack-initrd=on"})
          .config;
  EXPECT_EQ(config.memory.size, MiB(1536));
  EXPECT_EQ(config.memory.backing, MemoryBacking::kMemfd);
  EXPECT_TRUE(config.memory.transparent_huge_pages);
  EXPECT_TRUE(config.memory.preallocate);
  EXPECT_EQ(config.cpus.count, 4U);
  EXPECT_THAT(config.cpus.remove_features, ElementsAre("avx512f"));
  EXPECT_THAT(config.cpus.add_features, ElementsAre("x2apic"));
  EXPECT_EQ(config.irqchip, IrqchipMode::kSplit);
  ASSERT_EQ(config.quirks.size(), 2U);
  EXPECT_EQ(config.quirks[0].value, Toggle::kOff);
  EXPECT_EQ(config.quirks[1].name, "unpack-initrd");
}

TEST(Options, CmdlineIsAppendedToTheDefault) {
  const auto boot = std::get<KernelBoot>(
      run({"--kernel", "bzImage", "--initrd", "rd", "--cmdline", "quiet", "--kaslr"}).config.boot);
  EXPECT_EQ(boot.kernel, "bzImage");
  EXPECT_EQ(boot.initrd, "rd");
  EXPECT_EQ(boot.linux_cmdline, "console=ttyS0 earlyprintk=ttyS0 reboot=k panic=-1");
  EXPECT_EQ(boot.cmdline, "quiet");
  EXPECT_TRUE(boot.kaslr);
}

TEST(Options, CmdlineOnlyLeavesTheDefaultOut) {
  const auto boot = std::get<KernelBoot>(
      run({"--kernel", "k", "--cmdline", "quiet", "--cmdline-only"}).config.boot);
  EXPECT_EQ(boot.linux_cmdline, "");
  EXPECT_EQ(boot.cmdline, "quiet");
}

TEST(Options, ModulesHaveArgumentsBehindTheFirstComma) {
  const auto boot = std::get<KernelBoot>(
      run({"--kernel", "k", "--boot", "multiboot", "--module", "a.img", "--module", "b,x=1,y"})
          .config.boot);
  EXPECT_EQ(boot.protocol, BootProtocol::kMultiboot);
  ASSERT_EQ(boot.modules.size(), 2U);
  EXPECT_EQ(boot.modules[0].file, "a.img");
  EXPECT_EQ(boot.modules[0].arguments, "");
  EXPECT_EQ(boot.modules[1].file, "b");
  EXPECT_EQ(boot.modules[1].arguments, "x=1,y");
}

TEST(Options, FwCfgFilesHaveANameAndAContent) {
  const VmConfig config = run({"--fw-cfg", "name=opt/a,file=/some/file", "--fw-cfg",
                               "name=opt/b,string=x=1,y", "--testdev"})
                              .config;
  ASSERT_EQ(config.fw_cfg.size(), 2U);
  EXPECT_EQ(config.fw_cfg[0].name, "opt/a");
  EXPECT_EQ(config.fw_cfg[0].file, "/some/file");
  EXPECT_EQ(config.fw_cfg[1].name, "opt/b");
  EXPECT_EQ(config.fw_cfg[1].text, "x=1,y");
  EXPECT_TRUE(config.test_device);
}

TEST(Options, VirtioDevicesAreListed) {
  const VmConfig plain = run({}).config;
  EXPECT_TRUE(plain.virtio.empty());
  EXPECT_EQ(plain.virtio_transport, VirtioTransport::kPci);
  const VmConfig config = run({"--rng", "--transport", "mmio-cmdline"}).config;
  ASSERT_EQ(config.virtio.size(), 1U);
  EXPECT_TRUE(std::holds_alternative<VirtioRngConfig>(config.virtio[0]));
  EXPECT_EQ(config.virtio_transport, VirtioTransport::kMmioCmdline);
}

TEST(Options, BalloonMayComeWithoutAValue) {
  const auto balloon = [](const std::vector<std::string>& arguments) {
    return std::get<VirtioBalloonConfig>(run(arguments).config.virtio.at(0));
  };
  EXPECT_EQ(balloon({"--balloon"}).size, 0U);
  EXPECT_EQ(balloon({"--balloon=size=16M,stats"}).size, MiB(16));
  EXPECT_EQ(balloon({"--balloon", "size=16M"}).size, MiB(16));
  EXPECT_THAT(refused({"run", "--balloon=sise=1M"}).text, HasSubstr("--balloon: "));
}

TEST(Options, MemoryMayGrow) {
  const VmConfig config = run({"--mem", "512M", "--memory-max", "2G"}).config;
  EXPECT_EQ(std::get<VirtioMemConfig>(config.virtio.at(0)).most, GiB(2));
  EXPECT_THAT(refused({"run", "--memory-max=much"}).text, HasSubstr("--memory-max: "));
  EXPECT_THAT(refused({"run", "--mem=1G", "--memory-max=1G"}).text, HasSubstr("--mem"));
}

TEST(Options, PersistentMemoriesAreListed) {
  const RunRequest request = run({"--pmem", "file=a,size=64M,ro", "--pmem=file=b,discard-writes"});
  ASSERT_EQ(request.pmem.size(), 2U);
  EXPECT_EQ(request.pmem[0].file, "a");
  EXPECT_EQ(request.pmem[0].size, MiB(64));
  EXPECT_TRUE(request.pmem[0].read_only);
  EXPECT_FALSE(request.pmem[1].size);
  EXPECT_TRUE(request.pmem[1].discard_writes);
  for (const char* const text : {"size=1M", "file=", "file=a,rw", "file=a,size=x", "file=a,ro=1",
                                 "file=a,ro,discard-writes"}) {
    EXPECT_THAT(refused({"run", "--pmem", text}).text, HasSubstr("--pmem: ")) << text;
  }
}

TEST(Options, ClockFollowsTheHostOrStandsStill) {
  EXPECT_FALSE(run({}).config.clock.frozen);
  const ClockConfig frozen = run({"--clock", "frozen"}).config.clock;
  EXPECT_TRUE(frozen.frozen);
  EXPECT_EQ(frozen.ahead, std::chrono::seconds(0));
  EXPECT_FALSE(run({"--clock", "host,base=utc"}).config.clock.frozen);
}

TEST(Options, ClockBeginsAtADate) {
  constexpr std::chrono::seconds kNow{1'700'000'000};  // 2023-11-14 22:13:20
  EXPECT_EQ(parse_clock("base=2023-11-14T22:13:21", kNow)->ahead, std::chrono::seconds(1));
  EXPECT_EQ(parse_clock("frozen,base=2023-11-14", kNow)->ahead, -std::chrono::seconds(80'000));
  EXPECT_EQ(parse_clock("base=1970-01-01T00:00:00", kNow)->ahead, -kNow);
}

TEST(Options, ClockHasARate) {
  EXPECT_EQ(run({}).config.clock.rate, 1);
  EXPECT_EQ(run({"--clock", "rate=0.25"}).config.clock.rate, 0.25);
  EXPECT_EQ(run({"--clock", "frozen,rate=10"}).config.clock.rate, 10);
  // Nobody could move a clock that stands still.
  for (const char* bad : {"rate=", "rate=0", "rate=-1", "rate=1e9", "rate=0x10", "rate=nan"}) {
    EXPECT_FALSE(parse_clock(bad, {})) << bad;
  }
}

TEST(Options, ClockRefusesWhatIsNoDate) {
  for (const std::string_view text :
       {"", "now", "base=", "base=2023-02-29", "base=2023-11-14T24:00:00",
        "base=2023-11-14 22:13:20", "base=1969-12-31", "base=2200-01-01", "base=20231114",
        "base=2O23-11-14", "host,"}) {
    EXPECT_FALSE(parse_clock(text, std::chrono::seconds(0))) << text;
  }
}

TEST(Options, UuidIsReadInTheOrderOfItsText) {
  const auto uuid = run({"--uuid", "00112233-4455-6677-8899-aabbccddeeff"}).config.uuid;
  EXPECT_EQ(uuid[0], 0x00);
  EXPECT_EQ(uuid[5], 0x55);
  EXPECT_EQ(uuid[15], 0xff);
}

TEST(Options, CmdlineGoesToTheBuiltInGuest) {
  const auto boot = std::get<BuiltinGuest>(run({"--cmdline", "cmd=mem off"}).config.boot);
  EXPECT_EQ(boot.cmdline, "cmd=mem off");
}

TEST(Options, ValueMayBeginWithADash) {
  EXPECT_EQ(std::get<BuiltinGuest>(run({"--cmdline", "-x --y"}).config.boot).cmdline, "-x --y");
}

TEST(Options, FlatImageHasAddressAndMode) {
  const RunRequest request = run({"--kernel", "boot.bin", "--boot", "flat,addr=0x7c00,mode=real"});
  const auto boot = std::get<FlatBoot>(request.config.boot);
  EXPECT_EQ(request.flat_file, "boot.bin");
  EXPECT_EQ(boot.address, Gpa(0x7c00));
  EXPECT_EQ(boot.mode, FlatMode::kReal);
}

TEST(Options, SerialKinds) {
  EXPECT_EQ(std::get<FileConsole>(run({"--serial", "file:/tmp/a:b"}).serial).path, "/tmp/a:b");
  EXPECT_EQ(std::get<UnixConsole>(run({"--serial=unix:s"}).serial).path, "s");
  EXPECT_TRUE(std::holds_alternative<PtyConsole>(run({"--serial", "pty"}).serial));
  EXPECT_TRUE(std::holds_alternative<NullConsole>(run({"--serial", "null"}).serial));
}

TEST(Options, ControlIsRead) {
  const RunRequest request = run({"--no-reboot", "--timeout", "1.5", "--debug-exit", "0x501", "-q",
                                  "-v", "--debug-console", "log", "--escape", "^T"});
  EXPECT_TRUE(request.no_reboot);
  EXPECT_EQ(request.timeout, std::chrono::milliseconds(1500));
  EXPECT_EQ(request.config.debug_exit_port, std::uint16_t{0x501});
  EXPECT_TRUE(request.quiet);
  EXPECT_TRUE(request.verbose);
  EXPECT_EQ(std::get<FileConsole>(*request.debug_console).path, "log");
  EXPECT_EQ(request.escape, true);
  EXPECT_EQ(request.escape_key, std::byte{0x14});
}

TEST(Options, DebugExitCanBeOff) {
  EXPECT_FALSE(run({"--debug-exit", "off"}).config.debug_exit_port);
}

TEST(Options, TraceTakesKindsOrNone) {
  EXPECT_FALSE(run({}).trace);
  const RunRequest all = run({"--trace", "--thp"});
  EXPECT_TRUE(all.trace);
  EXPECT_THAT(all.trace_rules, IsEmpty());
  EXPECT_THAT(run({"--trace=pio:0x3f8-0x3ff,mmio"}).trace_rules,
              ElementsAre(TraceRule{.kind = "pio", .first = 0x3f8, .last = 0x3ff},
                          TraceRule{.kind = "mmio"}));
  EXPECT_TRUE(run({"--trace=cpuid:7"}).config.trace_cpuid);
}

TEST(Options, LastOneWins) {
  EXPECT_EQ(run({"--mem", "1G", "--mem", "64M"}).config.memory.size, MiB(64));
}

TEST(Options, EveryProblemIsReportedWithItsOption) {
  const PrintOnly print = refused({"run", "--mem", "12Q", "--cpus", "x", "--serial", "tty",
                                   "--quirk", "a=on", "--timeout", "-1", "--irqchip", "best",
                                   "--nonsense", "--kernel", "k", "--boot", "elf"});
  EXPECT_EQ(print.exit_code, kExitUsage);
  EXPECT_THAT(print.text, HasSubstr("--mem: '12Q' is not a size"));
  EXPECT_THAT(print.text, HasSubstr("--cpus: 'x' is not a number"));
  EXPECT_THAT(print.text, HasSubstr("--serial: 'tty' is not one of"));
  EXPECT_THAT(print.text, HasSubstr("--quirk: 'a' is not a quirk"));
  EXPECT_THAT(print.text, HasSubstr("--timeout: -1 seconds"));
  EXPECT_THAT(print.text, HasSubstr("--irqchip: 'best' is not one of"));
  EXPECT_THAT(print.text, HasSubstr("--boot: 'elf' is not one of"));
  EXPECT_THAT(print.text, HasSubstr("--nonsense: there is no such option"));
}

TEST(Options, LibraryProblemsNameTheOption) {
  EXPECT_THAT(refused({"run", "--mem", "1M"}).text, HasSubstr("--mem: Guest memory of 1 MiB"));
  EXPECT_THAT(refused({"run", "--cpus", "0"}).text, HasSubstr("--cpus: 0 CPUs"));
  EXPECT_THAT(refused({"run", "--cpus", "2", "--irqchip", "none"}).text,
              HasSubstr("More than one CPU"));
}

TEST(Options, OptionsThatNeedAKernelSaySo) {
  EXPECT_THAT(refused({"run", "--initrd", "x"}).text, HasSubstr("--initrd: there is no --kernel"));
  EXPECT_THAT(refused({"run", "--kernel", "k", "--boot", "flat", "--initrd", "x"}).text,
              HasSubstr("--initrd: a flat image takes none"));
}

TEST(Options, SlipsAreAnsweredWithASuggestion) {
  EXPECT_THAT(refused({"run", "--memm", "1G"}).text, HasSubstr("did you mean --mem?"));
  EXPECT_THAT(refused({"run", "bzImage"}).text, HasSubstr("given with --kernel"));
  EXPECT_THAT(refused({"run", "--mem"}).text, HasSubstr("--mem: the value is missing"));
  EXPECT_THAT(refused({"rum"}).text, HasSubstr("rum: there is no such command"));
}

TEST(Options, HelpAndVersionGoToStdout) {
  EXPECT_EQ(refused({"--version"}).exit_code, 0);
  EXPECT_THAT(refused({"--help"}).text, HasSubstr("vmm doctor"));
  const PrintOnly help = refused({"run", "--help"});
  EXPECT_EQ(help.exit_code, 0);
  EXPECT_THAT(help.text, HasSubstr("Examples:"));
  EXPECT_THAT(help.text, HasSubstr("--initrd"));
  EXPECT_EQ(refused({"help", "run"}).text, help.text);
  EXPECT_EQ(refused({"help"}).text, refused({"--help"}).text);
  EXPECT_EQ(refused({}).exit_code, kExitUsage);
}

TEST(Options, EveryOptionIsInTheHelp) {
  const std::string help = refused({"run", "--help"}).text;
  for (const OptionSpec& spec : run_option_table()) {
    EXPECT_THAT(help, HasSubstr("--" + std::string(spec.name)));
  }
}

TEST(Options, OtherCommands) {
  EXPECT_EQ(std::get<InspectCommand>(parse_command_line({"inspect", "f", "--json"})).file, "f");
  EXPECT_TRUE(std::get<DoctorCommand>(parse_command_line({"doctor", "--json"})).json);
  EXPECT_EQ(refused({"inspect"}).exit_code, kExitUsage);
  EXPECT_EQ(refused({"doctor", "x"}).exit_code, kExitUsage);
}

TEST(Options, CommandLineWinsOverTheFile) {
  const auto path =
      std::filesystem::temp_directory_path() / ("vmm-config-" + std::to_string(::getpid()));
  std::ofstream(path) << R"({"mem": "1G", "cpus": 2, "quirk": ["syscall-fixup=on"]})";
  const RunRequest request = run({"--config", path, "--mem", "64M", "--quirk", "unpack-initrd=on"});
  EXPECT_EQ(request.config.memory.size, MiB(64));
  EXPECT_EQ(request.config.cpus.count, 2U);
  ASSERT_EQ(request.config.quirks.size(), 2U);
  EXPECT_EQ(request.config.quirks[0].name, "syscall-fixup");
  std::filesystem::remove(path);
}

TEST(Options, MissingConfigFileIsAUsageError) {
  const PrintOnly print = refused({"run", "--config", "/nonexistent.json"});
  EXPECT_EQ(print.exit_code, kExitUsage);
  EXPECT_THAT(print.text, HasSubstr("/nonexistent.json"));
}

TEST(Options, WatchdogsActionIsRead) {
  EXPECT_EQ(run({}).config.watchdog.has_value(), false);
  EXPECT_EQ(run({"--watchdog"}).config.watchdog->action, WatchdogAction::kReset);
  EXPECT_EQ(parse_watchdog("action=poweroff")->action, WatchdogAction::kPowerOff);
  EXPECT_EQ(parse_watchdog("action=panic")->action, WatchdogAction::kPanic);
  EXPECT_EQ(parse_watchdog("action=stop")->action, WatchdogAction::kStop);
  EXPECT_EQ(parse_watchdog("action=none")->action, WatchdogAction::kNone);
}

TEST(Options, OtherWordsForAWatchdogAreRefused) {
  EXPECT_THAT(parse_watchdog("action=pause").error().message(),
              HasSubstr("reset, poweroff, panic, stop, none"));
  EXPECT_THAT(parse_watchdog("timeout=3").error().message(), HasSubstr("action=ACTION"));
}

TEST(Options, TestHasImagesAndOptionsForTheirRuns) {
  Command command = parse_command_line({"test", "a.elf", "-j", "3", "b.elf", "--timeout", "1.5",
                                        "--pass-value", "16", "--", "--mem", "64M", "--testdev"});
  ASSERT_TRUE(std::holds_alternative<TestCommand>(command)) << std::get<PrintOnly>(command).text;
  const TestCommand test = std::get<TestCommand>(command);
  EXPECT_THAT(test.images, ElementsAre("a.elf", "b.elf"));
  EXPECT_EQ(test.jobs, 3U);
  EXPECT_EQ(test.rules.timeout, std::chrono::milliseconds(1500));
  EXPECT_EQ(test.rules.pass_value, 16U);
  EXPECT_THAT(test.rules.run_options, ElementsAre("--mem", "64M", "--testdev"));
  EXPECT_THAT(test_arguments("a.elf", test.rules),
              ElementsAre("run", "--kernel=a.elf", "--no-reboot", "--timeout=1.500", "--mem", "64M",
                          "--testdev"));
}

TEST(Options, TestIsRefusedBeforeAnythingRuns) {
  EXPECT_THAT(refused({"test"}).text, HasSubstr("image"));
  EXPECT_THAT(refused({"test", "a.elf", "--timeout", "soon"}).text, HasSubstr("--timeout"));
  EXPECT_THAT(refused({"test", "a.elf", "--jobs", "0"}).text, HasSubstr("--jobs"));
  const PrintOnly print = refused({"test", "a.elf", "--", "--mem", "4Q"});
  EXPECT_EQ(print.exit_code, kExitUsage);
  EXPECT_THAT(print.text, HasSubstr("--mem: '4Q'"));
}

// A word that is a command's name elsewhere.
TEST(Options, CommandIsTheFirstWord) {
  Command command = parse_command_line({"inspect", "test"});
  ASSERT_TRUE(std::holds_alternative<InspectCommand>(command));
  EXPECT_EQ(std::get<InspectCommand>(command).file, "test");
}

// Whose errors begin with what the user wrote.
TEST(Options, OtherWordsOfTheControlSocket_keepTheirName) {
  for (const char* const name : {"ctl", "snapshot", "core"}) {
    const Command command = parse_command_line({name, "socket", "file"});
    const auto* const ctl = std::get_if<CtlCommand>(&command);
    ASSERT_NE(ctl, nullptr) << name;
    EXPECT_EQ(ctl->name, name);
  }
}

}  // namespace
}  // namespace vmm::cli
