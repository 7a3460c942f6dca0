#include "cli/run_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <limits>

#include "cli/balloon_option.h"
#include "cli/net_option.h"
#include "cli/option_values.h"
#include "cli/pmem_option.h"

namespace vmm::cli {
namespace {

constexpr std::array<std::pair<std::string_view, MemoryBacking>, 3> kBackings{
    {{"anonymous", MemoryBacking::kAnonymous},
     {"memfd", MemoryBacking::kMemfd},
     {"hugetlbfs", MemoryBacking::kHugetlbfs}}};
constexpr std::array<std::pair<std::string_view, IrqchipMode>, 5> kIrqchips{
    {{"auto", IrqchipMode::kAuto},
     {"kernel", IrqchipMode::kKernel},
     {"split", IrqchipMode::kSplit},
     {"user", IrqchipMode::kUser},
     {"none", IrqchipMode::kNone}}};
constexpr std::array<std::pair<std::string_view, VirtioTransport>, 3> kTransports{
    {{"pci", VirtioTransport::kPci},
     {"mmio", VirtioTransport::kMmio},
     {"mmio-cmdline", VirtioTransport::kMmioCmdline}}};
constexpr std::array<std::pair<std::string_view, Toggle>, 3> kUnpack{
    {{"auto", Toggle::kAuto}, {"on", Toggle::kOn}, {"off", Toggle::kOff}}};
constexpr std::array<std::pair<std::string_view, bool>, 6> kBooleans{
    {{"true", true}, {"false", false}, {"on", true}, {"off", false}, {"1", true}, {"0", false}}};

// Looks options up and collects what is wrong with them.
class Reader {
 public:
  Reader(const RawOptions& raw, std::vector<std::string>& problems)
      : raw_(raw), problems_(problems) {}

  bool has(std::string_view name) const { return find(name) != nullptr; }

  // The last text of an option, which a default stands in for.
  std::string text(std::string_view name, std::string_view otherwise) const {
    const RawOption* const option = find(name);
    return option == nullptr || option->values.empty() ? std::string(otherwise)
                                                       : option->values.back();
  }

  // What `parse` makes of the last text; `otherwise` when there is none or it is wrong.
  template <typename T, typename Parse>
  T value(std::string_view name, T otherwise, Parse&& parse) {
    const RawOption* const option = find(name);
    if (option == nullptr || option->values.empty()) return otherwise;
    Result<T> result = parse(std::string_view(option->values.back()));
    if (result) return *std::move(result);
    problem(name, result.error().message());
    return otherwise;
  }

  template <typename T, std::size_t N>
  T word(std::string_view name, T otherwise,
         const std::array<std::pair<std::string_view, T>, N>& words) {
    return value<T>(name, otherwise, [&](std::string_view text) {
      return parse_word<T>(text, std::span<const std::pair<std::string_view, T>>(words));
    });
  }

  bool flag(std::string_view name) { return word(name, false, kBooleans); }
  // Given, and not a flag that was switched off.
  bool asked(std::string_view name) const {
    return has(name) && text(name, "") != "false" && text(name, "") != "0";
  }

  const std::vector<std::string>& list(std::string_view name) const {
    static const std::vector<std::string> kNone;
    const RawOption* const option = find(name);
    return option == nullptr ? kNone : option->values;
  }

  // "--mem: what is wrong", or with the place in the configuration file.
  void problem(std::string_view name, std::string_view what) {
    const RawOption* const option = find(name);
    problems_.push_back(option == nullptr ? fmt::format("--{}: {}", name, what)
                                          : fmt::format("{}: {}", option->origin, what));
  }

 private:
  const RawOption* find(std::string_view name) const {
    const auto found = raw_.find(name);
    return found == raw_.end() ? nullptr : &found->second;
  }
  const RawOptions& raw_;
  std::vector<std::string>& problems_;
};

void read_machine(Reader& reader, VmConfig& config) {
  config.memory.size = reader.value<std::uint64_t>("mem", config.memory.size, parse_size);
  if (reader.has("memory-max")) {
    config.virtio.emplace_back(
        VirtioMemConfig{.most = reader.value<std::uint64_t>("memory-max", 0, parse_size)});
  }
  config.memory.backing = reader.word("mem-backing", config.memory.backing, kBackings);
  config.memory.transparent_huge_pages = reader.flag("thp");
  config.memory.preallocate = reader.flag("mem-prealloc");
  constexpr std::uint64_t kMost = std::numeric_limits<std::uint32_t>::max();
  config.cpus.count = static_cast<std::uint32_t>(reader.value<std::uint64_t>(
      "cpus", 1, [](std::string_view text) { return parse_number(text, kMost); }));
  config.cpus = reader.value<CpuConfig>("cpu", config.cpus, [&](std::string_view text) {
    return parse_cpu(text, config.cpus.count);
  });
  config.irqchip = reader.word("irqchip", config.irqchip, kIrqchips);
  config.tick_share = static_cast<std::uint32_t>(
      reader.value<std::uint64_t>("tick-share", config.tick_share,
                                  [](std::string_view text) { return parse_number(text, kMost); }));
  for (const std::string& text : reader.list("quirk")) {
    auto quirk = parse_quirk(text);
    if (quirk) {
      config.quirks.push_back(*std::move(quirk));
    } else {
      reader.problem("quirk", quirk.error().message());
    }
  }
}

void read_virtio(Reader& reader, VmConfig& config) {
  if (reader.flag("rng")) config.virtio.emplace_back(VirtioRngConfig{});
  if (reader.asked("balloon")) {
    const VirtioBalloonConfig balloon =
        reader.value<VirtioBalloonConfig>("balloon", {}, [](std::string_view text) {
          return parse_balloon(text == "true" ? std::string_view() : text);
        });
    config.virtio.emplace_back(balloon);
  }
  if (reader.asked("watchdog")) {
    config.watchdog = reader.value<WatchdogConfig>("watchdog", {}, [](std::string_view text) {
      return parse_watchdog(text == "true" ? std::string_view() : text);
    });
  }
  config.virtio_transport = reader.word("transport", config.virtio_transport, kTransports);
  constexpr std::uint64_t kMostSlots = 31;
  config.hotplug_slots = static_cast<std::uint32_t>(reader.value<std::uint64_t>(
      "hotplug-slots", config.hotplug_slots,
      [](std::string_view text) { return parse_number(text, kMostSlots); }));
}

void read_io_threads(Reader& reader, VmConfig& config) {
  config.io_threads = static_cast<std::uint32_t>(reader.value<std::uint64_t>(
      "iothreads", config.io_threads,
      [](std::string_view text) { return parse_number(text, kMostIoThreads); }));
}

void read_disks(Reader& reader, RunRequest& request) {
  for (const std::string& text : reader.list("disk")) {
    auto disk = parse_disk(text);
    if (disk) {
      request.disks.push_back(*std::move(disk));
    } else {
      reader.problem("disk", disk.error().message());
    }
  }
}

void read_pmem(Reader& reader, RunRequest& request) {
  for (const std::string& text : reader.list("pmem")) {
    auto pmem = parse_pmem(text);
    if (pmem) {
      request.pmem.push_back(*std::move(pmem));
    } else {
      reader.problem("pmem", pmem.error().message());
    }
  }
}

void read_machine_data(Reader& reader, VmConfig& config) {
  for (const std::string& text : reader.list("fw-cfg")) {
    auto file = parse_fw_cfg(text);
    if (file) {
      config.fw_cfg.push_back(*std::move(file));
    } else {
      reader.problem("fw-cfg", file.error().message());
    }
  }
  config.uuid = reader.value<std::array<std::uint8_t, 16>>("uuid", config.uuid, parse_uuid);
  config.test_device = reader.flag("testdev");
  const auto now = std::chrono::duration_cast<std::chrono::seconds>(
      std::chrono::system_clock::now().time_since_epoch());
  config.clock = reader.value<ClockConfig>(
      "clock", config.clock, [now](std::string_view text) { return parse_clock(text, now); });
}

// Options that mean nothing for what is booted are mistakes, not wishes.
void refuse_for(Reader& reader, std::string_view what,
                std::initializer_list<std::string_view> names) {
  for (const std::string_view name : names) {
    if (reader.asked(name)) reader.problem(name, what);
  }
}

// A snapshot has all that is asked for here.
void read_restore(Reader& reader, RunRequest& request) {
  refuse_for(
      reader, "the snapshot of --restore says what the machine is",
      {"kernel",  "initrd",        "module",     "cmdline",     "cmdline-only", "boot",
       "kaslr",   "initrd-unpack", "mem",        "mem-backing", "thp",          "mem-prealloc",
       "cpus",    "cpu",           "tick-share", "fw-cfg",      "uuid",         "rng",
       "balloon", "transport",     "clock",      "testdev",     "debug-exit"});
  request.snapshot_file = reader.text("restore", "");
  if (request.snapshot_file->empty()) reader.problem("restore", "the file name is empty");
  if (reader.has("restore-memory")) {
    request.restore_memory =
        reader.value<RestoreMemory>("restore-memory", {}, parse_restore_memory);
  }
}

void read_boot(Reader& reader, RunRequest& request) {
  if (reader.has("restore")) return read_restore(reader, request);
  refuse_for(reader, "there is no --restore that this could be for", {"restore-memory"});
  const BootChoice boot = reader.value<BootChoice>("boot", {}, parse_boot);
  const bool only = reader.flag("cmdline-only");
  const std::string given = reader.text("cmdline", "");
  const bool kaslr = reader.flag("kaslr");
  const Toggle unpack = reader.word("initrd-unpack", Toggle::kAuto, kUnpack);
  if (!reader.has("kernel")) {
    refuse_for(reader, "there is no --kernel that this could be for",
               {"initrd", "module", "boot", "kaslr", "initrd-unpack", "cmdline-only"});
    request.config.boot = BuiltinGuest{.cmdline = given};
    return;
  }
  const std::string kernel = reader.text("kernel", "");
  if (kernel.empty()) reader.problem("kernel", "the file name is empty");
  if (boot.protocol == BootProtocol::kFlat) {
    refuse_for(reader, "a flat image takes none",
               {"initrd", "module", "cmdline", "cmdline-only", "kaslr", "initrd-unpack"});
    request.flat_file = kernel;
    request.config.boot = FlatBoot{.name = kernel, .address = boot.address, .mode = boot.mode};
    return;
  }
  KernelBoot kernel_boot;
  kernel_boot.kernel = kernel;
  if (reader.has("initrd")) kernel_boot.initrd = reader.text("initrd", "");
  for (const std::string& text : reader.list("module")) {
    auto module = parse_module(text);
    if (module) {
      kernel_boot.modules.push_back(*std::move(module));
    } else {
      reader.problem("module", module.error().message());
    }
  }
  kernel_boot.cmdline = given;
  if (!only) kernel_boot.linux_cmdline = kDefaultCmdline;
  kernel_boot.protocol = boot.protocol;
  kernel_boot.kaslr = kaslr;
  kernel_boot.initrd_unpack = unpack;
  request.config.boot = std::move(kernel_boot);
}

Result<ConsoleSpec> parse_debug_console(std::string_view text) {
  if (text == "stdio") return ConsoleSpec(StreamConsole{.input_fd = -1, .output_fd = 1});
  if (text.empty()) return fail(ErrorCode::kBadConfig, "the file name is empty");
  return ConsoleSpec(FileConsole{std::string(text)});
}

// Who has standard input and output: the serial port, unless a port is put there.
void share_stdio(Reader& reader, RunRequest& request) {
  const auto wanted = std::count_if(request.consoles.begin(), request.consoles.end(),
                                    [](const ConsolePortSpec& port) { return port.on_stdio(); });
  if (wanted == 0) return;
  if (wanted > 1) reader.problem("console", "only one can be on stdio");
  if (!reader.has("serial")) request.serial = NullConsole{};
  if (std::holds_alternative<StreamConsole>(request.serial)) {
    reader.problem("console",
                   "standard input and output are the serial port's already (--serial stdio): give "
                   "one of the two another place");
  }
}

// A console on the terminal is the one that people want to see, so Linux gets it as its last, which
// is /dev/console.
void prefer_console_on_stdio(RunRequest& request) {
  auto* const kernel = std::get_if<KernelBoot>(&request.config.boot);
  if (kernel == nullptr || kernel->linux_cmdline.empty()) return;
  std::size_t number = 0;
  for (const ConsolePortSpec& port : request.consoles) {
    if (!port.name.empty()) continue;
    if (port.on_stdio()) kernel->linux_cmdline += fmt::format(" console=hvc{}", number);
    ++number;
  }
}

void read_ports(Reader& reader, RunRequest& request) {
  VirtioConsoleConfig device;
  for (const std::string& text : reader.list("console")) {
    auto port = parse_console(text);
    if (port) {
      device.ports.push_back({.name = port->name});
      request.consoles.push_back(*std::move(port));
    } else {
      reader.problem("console", port.error().message());
    }
  }
  if (!device.ports.empty()) request.config.virtio.emplace_back(std::move(device));
  share_stdio(reader, request);
  prefer_console_on_stdio(request);
}

void read_consoles(Reader& reader, RunRequest& request) {
  request.serial = reader.value<ConsoleSpec>("serial", request.serial, parse_serial);
  read_ports(reader, request);
  const EscapeChoice escape = reader.value<EscapeChoice>("escape", {}, parse_escape);
  request.escape = escape.enabled;
  request.escape_key = escape.key;
  if (reader.text("debug-console", "off") != "off") {
    request.debug_console =
        reader.value<ConsoleSpec>("debug-console", NullConsole{}, parse_debug_console);
  }
}

void read_networks(Reader& reader, RunRequest& request) {
  for (const std::string& text : reader.list("net")) {
    auto network = parse_net(text);
    if (network) {
      request.networks.push_back(*std::move(network));
    } else {
      reader.problem("net", network.error().message());
    }
  }
}

void read_shares(Reader& reader, RunRequest& request) {
  for (const std::string& text : reader.list("share")) {
    auto share = parse_share(text);
    if (share) {
      request.shares.push_back(*std::move(share));
    } else {
      reader.problem("share", share.error().message());
    }
  }
}

// Whoever serves a device besides this process maps the guest's memory.
void share_memory(Reader& reader, RunRequest& request) {
  const auto on_vhost = [](const NetworkSpec& network) {
    return std::holds_alternative<VhostNetwork>(network.where);
  };
  const bool needed =
      !request.shares.empty() ||
      std::any_of(request.disks.begin(), request.disks.end(),
                  [](const DiskSpec& disk) { return !disk.vhost_socket.empty(); }) ||
      std::any_of(request.networks.begin(), request.networks.end(), on_vhost);
  MemoryBacking& backing = request.config.memory.backing;
  if (!needed || backing != MemoryBacking::kAnonymous) return;
  if (reader.has("mem-backing")) {
    reader.problem("mem-backing",
                   "with vhost-user devices or --share another process maps the guest's memory: "
                   "memfd or hugetlbfs, or leave the option out");
  }
  backing = MemoryBacking::kMemfd;
}

void read_vsock(Reader& reader, RunRequest& request) {
  if (!reader.has("vsock")) return;
  request.vsock = reader.value<VsockSpec>("vsock", {}, parse_vsock);
}

// Whether it goes on.
Result<bool> parse_gdb_time(std::string_view text) {
  if (text == "guest" || text == "host") return text == "host";
  return fail(ErrorCode::kBadConfig, "'{}' is neither guest nor host", text);
}

void read_debugging(Reader& reader, RunRequest& request) {
  if (reader.has("gdb")) {
    request.gdb =
        reader.value<debug::ServerAddress>("gdb", debug::StdioAddress{}, debug::parse_address);
  }
  request.gdb_wait = reader.flag("gdb-wait");
  request.gdb_time_goes_on = reader.value<bool>("gdb-time", false, parse_gdb_time);
  request.on_crash = reader.value<CrashAction>("on-crash", {}, parse_crash_action);
  request.symbols = reader.text("symbols", "");
  constexpr std::uint64_t kMostRecorded = 65536;
  request.config.recorded_exits = static_cast<std::uint32_t>(reader.value<std::uint64_t>(
      "record-exits", request.config.recorded_exits,
      [](std::string_view text) { return parse_number(text, kMostRecorded); }));
  const bool reachable = request.gdb || request.control;
  if (request.gdb_wait && !reachable) {
    reader.problem("gdb-wait", "nobody could let the guest run: add --gdb unix:PATH");
  }
  if (request.on_crash.stays && !reachable) {
    reader.problem("on-crash", "nobody could look at it: add --gdb unix:PATH or --control PATH");
  }
  if (reader.has("symbols") && request.symbols.empty()) {
    reader.problem("symbols", "the file name is empty");
  }
  const auto* const serial = std::get_if<StreamConsole>(&request.serial);
  if (request.gdb && std::holds_alternative<debug::StdioAddress>(*request.gdb) &&
      serial != nullptr) {
    reader.problem("gdb", "stdio is the serial port's: add --serial null, pty or file:PATH");
  }
}

void read_control(Reader& reader, RunRequest& request) {
  if (reader.has("control")) {
    request.control = reader.text("control", "");
    if (request.control->empty()) reader.problem("control", "the path is empty");
  }
  if (reader.has("result")) {
    request.result = reader.text("result", "");
    if (request.result.empty()) reader.problem("result", "the file name is empty");
  }
  // A snapshot has nothing that could be booted again.
  request.no_reboot = reader.flag("no-reboot") || request.snapshot_file;
  if (reader.has("timeout")) {
    request.timeout =
        reader.value<std::chrono::nanoseconds>("timeout", std::chrono::seconds(1), parse_seconds);
  }
  if (reader.text("debug-exit", "") == "off") {
    request.config.debug_exit_port.reset();
  } else if (reader.has("debug-exit")) {
    request.config.debug_exit_port = static_cast<std::uint16_t>(reader.value<std::uint64_t>(
        "debug-exit", 0, [](std::string_view text) { return parse_number(text, 0xffff); }));
  }
  const std::string trace = reader.text("trace", "off");
  request.trace = reader.has("trace") && trace != "false" && trace != "off";
  if (request.trace && trace != "true" && !trace.empty()) {
    for (const std::string_view kind : split(trace, ',')) {
      if (kind == "syscalls") {
        request.trace_syscalls = true;
        continue;
      }
      if (kind == "irq" || kind == "requests") {
        (kind == "irq" ? request.trace_interrupts : request.trace_requests) = true;
        continue;
      }
      auto rule = parse_trace_rule(kind);
      if (!rule) {
        reader.problem("trace", rule.error().message());
        continue;
      }
      if (rule->kind == "cpuid") request.config.trace_cpuid = true;
      request.trace_rules.push_back(*std::move(rule));
    }
    request.trace = !request.trace_rules.empty();
  }
  request.quiet = reader.flag("quiet");
  request.verbose = reader.flag("verbose");
}

// What the library finds wrong, with the option's name where only one can be meant.
void check(Reader& reader, const RunRequest& request, std::vector<std::string>& problems) {
  std::vector<std::string> attributed;
  const auto blame = [&](std::string_view name, const VmConfig& part) {
    for (std::string& problem : validate(part)) {
      reader.problem(name, problem);
      attributed.push_back(std::move(problem));
    }
  };
  VmConfig only_memory, only_cpus;
  only_memory.memory.size = request.config.memory.size;
  only_cpus.cpus.count = request.config.cpus.count;
  blame("mem", only_memory);
  blame("cpus", only_cpus);
  VmConfig all = request.config;
  // The image is still in its file.
  if (auto* const flat = std::get_if<FlatBoot>(&all.boot)) flat->image.resize(1);
  for (std::string& problem : validate(all)) {
    if (std::find(attributed.begin(), attributed.end(), problem) == attributed.end()) {
      problems.push_back(std::move(problem));
    }
  }
}

}  // namespace

RunRequest interpret(const RawOptions& raw, std::vector<std::string>& problems) {
  RunRequest request;
  Reader reader(raw, problems);
  read_machine(reader, request.config);
  read_machine_data(reader, request.config);
  read_virtio(reader, request.config);
  read_io_threads(reader, request.config);
  read_disks(reader, request);
  read_pmem(reader, request);
  read_boot(reader, request);
  read_networks(reader, request);
  read_vsock(reader, request);
  read_shares(reader, request);
  share_memory(reader, request);
  read_consoles(reader, request);
  read_control(reader, request);
  read_debugging(reader, request);
  if (problems.empty()) check(reader, request, problems);
  return request;
}

}  // namespace vmm::cli
