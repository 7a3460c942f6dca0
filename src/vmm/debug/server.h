// Where a debugger connects: a socket, or a pair of descriptors, and the thread that speaks there.
//
// Threats: only this host's users reach it (a Unix socket of mode 0600, or the loopback interface);
// one debugger at a time, others wait; what it leaves unread stops its further requests, not the
// guest; when it goes away without a word the guest goes on.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/log.h"
#include "base/result.h"
#include "vmm/stop_reason.h"

namespace vmm::debug {

class Debugger;

struct UnixAddress {
  std::string path = {};
  bool operator==(const UnixAddress&) const = default;
};
struct TcpAddress {
  bool ipv6 = false;       // ::1; else 127.0.0.1
  std::uint16_t port = 0;  // 0: any
  bool operator==(const TcpAddress&) const = default;
};
struct StdioAddress {
  bool operator==(const StdioAddress&) const = default;
};
using ServerAddress = std::variant<UnixAddress, TcpAddress, StdioAddress>;

// "unix:PATH", "tcp:127.0.0.1:PORT", "tcp:[::1]:PORT", "tcp::PORT" or "stdio". Errors: kBadConfig;
// an address that others could reach is one.
Result<ServerAddress> parse_address(std::string_view text);

struct ServerOptions {
  bool wait = false;                     // the first machine stands before its first instruction
  std::string symbols = {};              // a System.map or vmlinux; empty: none
  bool time_goes_on = false;             // the guest's, while the debugger holds it
  std::function<void()> on_kill = {};    // the debugger wants the guest's end; on its thread
  std::function<void()> on_detach = {};  // it has let go; on its thread
  Log log = {};
};

// Owns the Debugger that a Vm is given, and a thread named "gdb" from listen() on. Any thread.
class Server {
 public:
  // Errors: what the symbols are refused for.
  static Result<std::unique_ptr<Server>> create(ServerOptions options);
  // Tells the debugger that the guest is over, lets go of the machine and joins.
  virtual ~Server() = default;

  // For Vm::attach_debugger().
  virtual std::shared_ptr<Debugger> debugger() const = 0;
  // Whether a debugger has stopped the guest. Does not wait.
  virtual bool holds() const noexcept = 0;
  // Begins to listen; where, as parse_address() takes it, with the port that was found. Errors:
  // what the address is refused for; kBadState, it listens already.
  virtual Result<std::string> listen(const ServerAddress& address) = 0;
  // The guest cannot run on: a debugger may look at it, until on_detach or on_kill is called.
  virtual void report_crash(const StopInfo& stop) = 0;
  // The guest stands although no debugger holds it, and goes on: who lets it go is told that it
  // waits.
  virtual void guest_paused(bool paused) noexcept = 0;
  // The guest is over, with this exit status of the command.
  virtual void guest_ended(unsigned exit_code) = 0;
  // Names of addresses in the guest's kernel ("name+0x10"), wherever it was moved to; empty texts
  // where there is none, nothing at all without symbols.
  virtual std::vector<std::string> names_of(std::span<const std::uint64_t> addresses) = 0;
};

}  // namespace vmm::debug
