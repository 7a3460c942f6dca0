// One debugger's conversation: packets in, answers out, and what they do to a Target (GDB manual,
// "Packets", "Stop Reply Packets", "General Query Packets"). Pure but for the target: no socket, no
// thread.
//
// All-stop: the guest runs or it stands, with all its CPUs. CPU n is thread n + 1. A signal that
// the debugger wants to deliver (C, S) means nothing to a machine and is dropped.
//
// Threats: the debugger may do to the guest what it likes, and nothing else. Every packet is
// answered, whatever it says; answers are bounded by the agreed packet size.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "vmm/debug/packet.h"
#include "vmm/debug/register_map.h"
#include "vmm/debug/target.h"

namespace vmm::debug {

// What outlives a connection.
struct SessionSettings {
  // How registers are described to the next debugger; nothing: as fits what the CPU executes then.
  std::optional<Architecture> architecture = {};
  // The descriptions that were wanted so far, by architecture. All sessions have one layout.
  std::map<Architecture, std::shared_ptr<const RegisterMap>> described = {};
};

class Session {
 public:
  // Both are borrowed. `layout` is the host's.
  Session(Target& target, SessionSettings& settings,
          const completion::XsaveLayout& layout = completion::XsaveLayout::host());

  // Bytes from the debugger.
  void receive(std::string_view bytes);
  // The machine, which was running, has stopped.
  void on_stop(const StopEvent& event);
  // The guest is over.
  void on_end(unsigned exit_code);

  // What is to be sent, once.
  std::string take_output() { return std::exchange(output_, {}); }
  // The debugger has taken its leave; after the output nothing follows.
  bool ended() const noexcept { return ended_; }
  bool guest_runs() const noexcept { return running_; }

 private:
  void on_packet(std::string_view packet);
  // Before a debugger's first packet is looked at, the guest is stopped.
  bool stop_at_first();
  void interrupt();

  void send(std::string_view payload);
  void send_ok() { send("OK"); }
  void send_error(unsigned number);
  void send_error(const Error& error);
  void send_stop(const StopEvent& event);
  std::string first_registers(const CpuState& state);
  void send_text(std::string_view text);  // for the user's eyes
  void send_done(const Result<void>& result);

  bool dispatch(char first, std::string_view rest);
  void read_registers();
  void write_registers(std::string_view rest);
  void read_register(std::string_view rest);
  void write_register(std::string_view rest);
  void read_memory(std::string_view rest, bool binary);
  void write_memory(std::string_view rest, bool binary);
  void set_thread(std::string_view rest);
  void is_thread_alive(std::string_view rest);
  void breakpoint(std::string_view rest, bool insert);
  // The conditions at the beginning of a text, which are taken away; nothing when they are none.
  std::optional<std::vector<StopCondition>> take_conditions(std::string_view& text);
  void resume_all(std::string_view rest, ResumeAction::Kind kind, bool has_signal);
  void resume(std::span<const ResumeAction> actions);
  // "bs" and "bc"; false when it is neither.
  bool resume_back(std::string_view rest);
  // The guest runs, unless `start` says why not.
  template <typename Start>
  void go(Start start) {
    seen_.reset();
    running_ = true;
    if (const auto started = start(); !started) {
      running_ = false;
      send_error(started.error());
    } else if (const std::string why = target_.waits_for(); !why.empty()) {
      send_text(why + "\n");
    }
  }

  // session_queries.cc
  bool query(std::string_view rest);
  bool set(std::string_view rest);
  bool verbose(std::string_view rest);
  bool resume_by_thread(std::string_view rest);
  void tell_features(std::string_view rest);
  void thread_extra(std::string_view rest);
  bool transfer(std::string_view rest);
  void command(std::string_view rest);
  bool own_command(std::string_view text);
  std::string memory_map() const;
  std::string threads();

  // The number of a CPU from a thread's; -1 and 0 are "all" and "any". Nothing when it is neither.
  struct ThreadChoice {
    bool all = false, any = false;
    unsigned cpu = 0;
  };
  std::optional<ThreadChoice> take_thread(std::string_view& text) const;
  const RegisterMap& map() { return *shared_map(); }
  const std::shared_ptr<const RegisterMap>& shared_map();
  Result<CpuState*> state();
  Space space() const noexcept { return physical_ ? Space::kPhysical : Space::kVirtual; }

  Target& target_;
  SessionSettings& settings_;
  const completion::XsaveLayout layout_;
  PacketReader reader_;
  std::string output_;
  std::string last_sent_;
  bool acknowledge_ = true;
  bool knows_swbreak_ = false, knows_hwbreak_ = false;
  bool physical_ = false;
  bool started_ = false;
  bool running_ = true;
  bool ended_ = false;
  unsigned general_cpu_ = 0;  // Hg
  unsigned control_cpu_ = 0;  // Hc
  std::optional<StopEvent> stop_;
  std::shared_ptr<const RegisterMap> map_;             // once described, for the whole connection
  std::optional<std::pair<unsigned, CpuState>> seen_;  // a CPU's registers since the last stop
};

}  // namespace vmm::debug
