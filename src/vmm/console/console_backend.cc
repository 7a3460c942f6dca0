#include "vmm/console/console_backend.h"

#include <atomic>

#include "vmm/console/console_endpoint.h"
#include "vmm/console/console_pump.h"

namespace vmm {
namespace {

class NullBackend final : public ConsoleBackend {
 public:
  void write(std::span<const std::byte> bytes) override { bytes_ += bytes.size(); }
  std::size_t room() const noexcept override { return std::size_t{1} << 20; }
  Result<void> start() override { return {}; }
  void on_writable(std::function<void()>) override {}
  void on_peer(std::function<void(bool)>) override {}
  void connect_input(ConsoleInput) override {}
  void disconnect_input() override {}
  bool flush(std::chrono::milliseconds) override { return true; }
  ConsoleStats stats() const override {
    ConsoleStats stats;
    stats.output_bytes = bytes_;
    return stats;
  }
  std::string place() const override { return {}; }

 private:
  std::atomic<std::uint64_t> bytes_{0};
};

struct MakeEndpoint {
  std::size_t recent;
  Result<std::unique_ptr<ConsoleEndpoint>> operator()(const StreamConsole& spec) const {
    return make_stream_endpoint(spec.input_fd, spec.output_fd);
  }
  Result<std::unique_ptr<ConsoleEndpoint>> operator()(const FileConsole& spec) const {
    return make_file_endpoint(spec.path);
  }
  Result<std::unique_ptr<ConsoleEndpoint>> operator()(const PtyConsole&) const {
    return make_pty_endpoint(recent);
  }
  Result<std::unique_ptr<ConsoleEndpoint>> operator()(const UnixConsole& spec) const {
    return make_unix_endpoint(spec.path, recent);
  }
  Result<std::unique_ptr<ConsoleEndpoint>> operator()(const NullConsole&) const { return nullptr; }
};

}  // namespace

Result<std::unique_ptr<ConsoleBackend>> ConsoleBackend::create(const ConsoleSpec& spec,
                                                               ConsoleOptions options) {
  auto endpoint = VMM_TRY(std::visit(MakeEndpoint{options.recent_output}, spec));
  if (!endpoint) return std::make_unique<NullBackend>();
  return VMM_TRY(ConsolePump::create(std::move(endpoint), std::move(options)));
}

}  // namespace vmm
