#include "cli/console_ports.h"

#include <fmt/format.h>

namespace vmm::cli {

Result<void> ConsolePorts::open(const std::vector<ConsolePortSpec>& ports,
                                const OptionsFor& options_for,
                                const std::function<void(const std::string&)>& note) {
  std::size_t consoles = 0;
  for (const ConsolePortSpec& spec : ports) {
    const bool console = spec.name.empty();
    Port port{.what = console ? fmt::format("console hvc{}", consoles++)
                              : fmt::format("port '{}'", spec.name),
              .console = console,
              .on_stdio = spec.on_stdio()};
    ConsoleOptions options = options_for(spec.where);
    options.thread_name = fmt::format("port{}", ports_.size());
    // What a program missed is not a screen that can be shown again.
    if (!console) options.recent_output = 0;
    port.host =
        VMM_TRY(with_context(ConsoleBackend::create(spec.where, std::move(options)),
                             fmt::format("Open the host's side of {} (--console)", port.what)));
    if (const std::string place = port.host->place(); !place.empty()) {
      note(fmt::format("{} on {}", port.what, place));
    }
    ports_.push_back(std::move(port));
  }
  return {};
}

void ConsolePorts::fill(VmConfig& config) const {
  for (VirtioConfig& device : config.virtio) {
    auto* const console = std::get_if<VirtioConsoleConfig>(&device);
    for (std::size_t i = 0; console != nullptr && i < ports_.size(); ++i) {
      console->ports[i].output = ports_[i].host.get();
    }
  }
}

void ConsolePorts::connect(Vm& vm, ConsoleSize terminal) const {
  resize(vm, terminal);
  for (std::size_t i = 0; i < ports_.size(); ++i) {
    ports_[i].host->on_writable([&vm, i] { vm.port_output_ready(i); });
    if (!ports_[i].console) {
      ports_[i].host->on_peer([&vm, i](bool present) { vm.set_port_open(i, present); });
    }
    ports_[i].host->connect_input(
        {[&vm, i](std::span<const std::byte> bytes) { return vm.push_port_input(i, bytes); },
         vm.port_input_space(i)});
  }
}

void ConsolePorts::disconnect() const {
  for (const Port& port : ports_) {
    port.host->disconnect_input();
    port.host->on_writable({});
    port.host->on_peer({});
  }
}

void ConsolePorts::resize(Vm& vm, ConsoleSize terminal) const {
  for (std::size_t i = 0; i < ports_.size(); ++i) {
    if (ports_[i].on_stdio) vm.set_port_size(i, terminal);
  }
}

std::vector<ConsoleBackend*> ConsolePorts::backends() const {
  std::vector<ConsoleBackend*> all;
  for (const Port& port : ports_) all.push_back(port.host.get());
  return all;
}

std::string ConsolePorts::statistics_text() const {
  std::string text;
  for (const Port& port : ports_) {
    const ConsoleStats stats = port.host->stats();
    text += fmt::format("vmm: {}: {} bytes out, {} lost, {} bytes in, {} lost\n", port.what,
                        stats.output_bytes, stats.output_dropped, stats.input_bytes,
                        stats.input_dropped);
  }
  return text;
}

}  // namespace vmm::cli
