#include "vmm/debug/session.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "base/le.h"
#include "vmm/debug/agent_expression.h"
#include "vmm/x86/msr_numbers.h"

namespace vmm::debug {
namespace {

// Numbers of errors; gdb shows them, and knows no meaning.
constexpr unsigned kBadRequest = 0x16;  // EINVAL
constexpr unsigned kNoAccess = 0x0e;    // EFAULT
constexpr unsigned kIsRunning = 0x10;   // EBUSY

// gdb's own signal numbers (include/gdb/signals.def).
unsigned signal_of(StopKind kind) noexcept {
  switch (kind) {
    case StopKind::kInterrupted:
      return 2;  // SIGINT
    case StopKind::kCrashed:
      return 6;  // SIGABRT
    case StopKind::kStep:
    case StopKind::kSoftwareBreakpoint:
    case StopKind::kHardwareBreakpoint:
    case StopKind::kWriteWatch:
    case StopKind::kReadWatch:
    case StopKind::kAccessWatch:
    case StopKind::kHistoryBegin:
    case StopKind::kHistoryEnd:
    case StopKind::kStackGuarded:
    case StopKind::kTapeEnd:
    case StopKind::kTapeTrouble:
      break;
  }
  return 5;  // SIGTRAP
}

// What cannot be evaluated is for the user to see.
bool condition_holds(std::string_view code, const RegisterMap& registers,
                     const ConditionContext& context) {
  const AgentContext agent{
      .read_register = [&](std::uint64_t number) -> std::optional<std::uint64_t> {
        if (number >= registers.count()) return std::nullopt;
        if (!context.whole && !registers.is_basic(static_cast<std::size_t>(number))) {
          return std::nullopt;
        }
        const auto bytes = registers.read(static_cast<std::size_t>(number), context.state);
        if (!bytes || bytes->size() > sizeof(std::uint64_t)) return std::nullopt;
        return load_le(std::as_bytes(std::span(*bytes)));
      },
      .read_memory = context.read_memory};
  const auto value = evaluate(std::as_bytes(std::span(code)), agent);
  return !value || *value != 0;
}

// Only what differs from what was seen is wanted: the time stamp counter has counted on. A debugger
// that writes all registers at once may have seen it some minutes before.
void leave_msrs(CpuState& wanted, const CpuState& seen, std::uint64_t tsc_while) {
  for (std::size_t i = 0; i < kNamedMsrs.size(); ++i) {
    std::optional<std::uint64_t>& value = wanted.msrs[i];
    const bool is_tsc = kNamedMsrs[i].index == x86::kMsrTsc;
    const bool as_seen = value == seen.msrs[i] ||
                         (is_tsc && value && seen.msrs[i] && *seen.msrs[i] - *value < tsc_while);
    if (as_seen) value.reset();
  }
}

}  // namespace

Session::Session(Target& target, SessionSettings& settings, const completion::XsaveLayout& layout)
    : target_(target), settings_(settings), layout_(layout) {}

void Session::receive(std::string_view bytes) {
  while (!ended_) {
    const auto event = reader_.next(bytes);
    if (!event) return;
    switch (event->kind) {
      case PacketEvent::Kind::kPacket:
        if (acknowledge_) output_ += '+';
        on_packet(event->payload);
        break;
      case PacketEvent::Kind::kBad:
        if (acknowledge_) output_ += '-';
        break;
      case PacketEvent::Kind::kNack:
        if (acknowledge_) output_ += last_sent_;
        break;
      case PacketEvent::Kind::kInterrupt:
        interrupt();
        break;
      case PacketEvent::Kind::kAck:
        break;
    }
  }
}

void Session::send(std::string_view payload) {
  last_sent_ = encode_packet(payload);
  output_ += last_sent_;
}

void Session::send_error(unsigned number) { send(fmt::format("E{:02x}", number)); }
void Session::send_error(const Error& error) { send("E." + error.message()); }

void Session::send_done(const Result<void>& result) {
  if (result) {
    send_ok();
  } else {
    send_error(result.error());
  }
}

void Session::send_text(std::string_view text) {
  constexpr std::size_t kPiece = kMostPayload / 4;
  while (!text.empty()) {
    const std::size_t n = std::min(kPiece, text.size());
    send("O" + to_hex(text.substr(0, n)));
    text.remove_prefix(n);
  }
}

const std::shared_ptr<const RegisterMap>& Session::shared_map() {
  if (!map_) {
    const Architecture architecture =
        settings_.architecture.value_or(target_.architecture(general_cpu_));
    std::shared_ptr<const RegisterMap>& known = settings_.described[architecture];
    if (!known) known = std::make_shared<const RegisterMap>(architecture, layout_);
    map_ = known;
  }
  return map_;
}

Result<CpuState*> Session::state() {
  if (!seen_ || seen_->first != general_cpu_) {
    seen_.emplace(general_cpu_, VMM_TRY(target_.state(general_cpu_)));
  }
  return &seen_->second;
}

// Those that a debugger wants to know at each stop.
std::string Session::first_registers(const CpuState& state) {
  std::string text;
  for (const std::size_t number : map().told_at_stops()) {
    text += fmt::format("{:02x}:{};", number, to_hex(*map().read(number, state)));
  }
  return text;
}

void Session::send_stop(const StopEvent& event) {
  std::string reply = fmt::format("T{:02x}", signal_of(event.kind));
  general_cpu_ = control_cpu_ = event.cpu;
  seen_.reset();
  // With the first answer the description is chosen, by the whole state.
  if (event.state && map_) {
    reply += first_registers({.general = event.state->general, .system = event.state->system});
  } else if (const auto state = this->state()) {
    reply += first_registers(**state);
  }
  reply += fmt::format("thread:{:x};core:{:x};", event.cpu + 1, event.cpu);
  switch (event.kind) {
    case StopKind::kSoftwareBreakpoint:
      if (knows_swbreak_) reply += "swbreak:;";
      break;
    case StopKind::kHardwareBreakpoint:
      if (knows_hwbreak_) reply += "hwbreak:;";
      break;
    case StopKind::kWriteWatch:
      reply += fmt::format("watch:{:x};", event.address);
      break;
    case StopKind::kReadWatch:
      reply += fmt::format("rwatch:{:x};", event.address);
      break;
    case StopKind::kAccessWatch:
      reply += fmt::format("awatch:{:x};", event.address);
      break;
    case StopKind::kHistoryBegin:
      reply += "replaylog:begin;";
      break;
    case StopKind::kHistoryEnd:
      reply += "replaylog:end;";
      break;
    case StopKind::kInterrupted:
    case StopKind::kStep:
    case StopKind::kCrashed:
    case StopKind::kStackGuarded:
    case StopKind::kTapeEnd:
    case StopKind::kTapeTrouble:
      break;
  }
  send(reply);
}

void Session::on_stop(const StopEvent& event) {
  stop_ = event;
  const bool awaited = running_ && started_;
  running_ = false;
  if (!awaited) return;
  // Only here: as an answer to "?" gdb wants nothing but the stop.
  if (!event.note.empty()) send_text(event.note + "\n");
  send_stop(event);
}

void Session::on_end(unsigned exit_code) {
  if (started_ && running_) send(fmt::format("W{:02x}", exit_code & 0xff));
  ended_ = true;
}

void Session::interrupt() {
  if (!started_ || !running_) return;  // it stands already
  auto event = target_.interrupt();
  if (event) {
    on_stop(*event);
  } else {
    send_text(event.error().message() + "\n");
  }
}

bool Session::stop_at_first() {
  if (started_) return true;
  auto event = target_.interrupt();
  if (!event) {
    send_error(event.error());
    return false;
  }
  started_ = true;
  running_ = false;
  stop_ = *std::move(event);
  general_cpu_ = control_cpu_ = stop_->cpu;
  return true;
}

void Session::on_packet(std::string_view packet) {
  if (packet.empty()) return send("");
  if (!stop_at_first()) return;
  if (running_) return send_error(kIsRunning);
  if (!dispatch(packet.front(), packet.substr(1))) send("");
}

bool Session::dispatch(char first, std::string_view rest) {
  switch (first) {
    case '?':
      stop_->state.reset();  // the debugger may have changed it
      send_stop(*stop_);
      return true;
    case 'g':
      read_registers();
      return true;
    case 'G':
      write_registers(rest);
      return true;
    case 'p':
      read_register(rest);
      return true;
    case 'P':
      write_register(rest);
      return true;
    case 'm':
    case 'x':
      read_memory(rest, first == 'x');
      return true;
    case 'M':
    case 'X':
      write_memory(rest, first == 'X');
      return true;
    case 'H':
      set_thread(rest);
      return true;
    case 'T':
      is_thread_alive(rest);
      return true;
    case 'Z':
    case 'z':
      breakpoint(rest, first == 'Z');
      return true;
    case 'c':
    case 'C':
      resume_all(rest, ResumeAction::Kind::kContinue, first == 'C');
      return true;
    case 's':
    case 'S':
      resume_all(rest, ResumeAction::Kind::kStep, first == 'S');
      return true;
    case 'b':
      return resume_back(rest);
    case 'D':
      send_ok();
      ended_ = true;
      target_.detach();
      return true;
    case 'k':
      ended_ = true;
      target_.kill();
      return true;
    case 'q':
      return query(rest);
    case 'Q':
      return set(rest);
    case 'v':
      return verbose(rest);
    default:
      return false;
  }
}

void Session::read_registers() {
  const auto state = this->state();
  if (!state) return send_error(kNoAccess);
  std::string reply;
  for (std::size_t i = 0; i < map().count(); ++i) {
    const auto bytes = map().read(i, **state);
    reply += bytes ? to_hex(*bytes) : std::string(map().size(i) * 2, 'x');
  }
  send(reply);
}

void Session::read_register(std::string_view rest) {
  const auto number = take_hex(rest);
  if (!number || !rest.empty() || *number >= map().count()) return send_error(kBadRequest);
  const auto state = this->state();
  if (!state) return send_error(kNoAccess);
  const auto bytes = map().read(*number, **state);
  send(bytes ? to_hex(*bytes) : std::string(map().size(*number) * 2, 'x'));
}

void Session::write_registers(std::string_view rest) {
  const auto seen = state();
  if (!seen) return send_error(kNoAccess);
  CpuState state = **seen;
  for (std::size_t i = 0; i < map().count() && !rest.empty(); ++i) {
    const std::string_view digits = rest.substr(0, map().size(i) * 2);
    rest.remove_prefix(digits.size());
    if (digits.find_first_not_of('x') == std::string_view::npos) continue;  // unavailable
    const auto bytes = from_hex(digits);
    if (!bytes || bytes->size() != map().size(i)) return send_error(kBadRequest);
    if (map().read(i, state) != *bytes) (void)map().write(i, *bytes, state);
  }
  constexpr std::uint64_t kMinutes = std::uint64_t{1} << 40;
  leave_msrs(state, **seen, kMinutes);
  seen_.reset();
  send_done(target_.set_state(general_cpu_, state));
}

void Session::write_register(std::string_view rest) {
  const auto number = take_hex(rest);
  if (!number || *number >= map().count() || rest.empty() || rest.front() != '=') {
    return send_error(kBadRequest);
  }
  const auto bytes = from_hex(rest.substr(1));
  const auto seen = state();
  if (!bytes || !seen) return send_error(kBadRequest);
  CpuState state = **seen;
  if (!map().write(*number, *bytes, state)) return send_error(kBadRequest);
  leave_msrs(state, **seen, 0);
  seen_.reset();
  send_done(target_.set_state(general_cpu_, state));
}

namespace {

struct MemoryRange {
  std::uint64_t address = 0, size = 0;
};

std::optional<MemoryRange> take_range(std::string_view& text) {
  const auto address = take_hex(text);
  if (!address || text.empty() || text.front() != ',') return std::nullopt;
  text.remove_prefix(1);
  const auto size = take_hex(text);
  if (!size) return std::nullopt;
  return MemoryRange{*address, *size};
}

}  // namespace

void Session::read_memory(std::string_view rest, bool binary) {
  const auto range = take_range(rest);
  if (!range || !rest.empty()) return send_error(kBadRequest);
  // No more than an answer holds: gdb asks for the rest.
  const std::size_t most = binary ? kMostPayload / 2 - 1 : kMostPayload / 2;
  std::string bytes(std::min<std::uint64_t>(range->size, most), '\0');
  if (!bytes.empty()) {
    const auto n = target_.read_memory(general_cpu_, space(), range->address,
                                       std::as_writable_bytes(std::span(bytes)));
    if (!n) return send_error(kNoAccess);
    bytes.resize(*n);
  }
  send(binary ? "b" + bytes : to_hex(bytes));
}

void Session::write_memory(std::string_view rest, bool binary) {
  const auto range = take_range(rest);
  if (!range || rest.empty() || rest.front() != ':') return send_error(kBadRequest);
  const auto bytes = binary ? std::string(rest.substr(1)) : from_hex(rest.substr(1));
  if (!bytes || bytes->size() != range->size) return send_error(kBadRequest);
  if (bytes->empty()) return send_ok();
  send_done(target_.write_memory(general_cpu_, space(), range->address,
                                 std::as_bytes(std::span(*bytes))));
}

std::optional<Session::ThreadChoice> Session::take_thread(std::string_view& text) const {
  if (text.substr(0, 2) == "-1") {
    text.remove_prefix(2);
    return ThreadChoice{.all = true};
  }
  const auto number = take_hex(text);
  if (!number || *number > target_.cpus()) return std::nullopt;
  if (*number == 0) return ThreadChoice{.any = true};
  return ThreadChoice{.cpu = static_cast<unsigned>(*number - 1)};
}

void Session::set_thread(std::string_view rest) {
  if (rest.empty() || (rest.front() != 'g' && rest.front() != 'c')) {
    return send_error(kBadRequest);
  }
  const bool general = rest.front() == 'g';
  rest.remove_prefix(1);
  const auto choice = take_thread(rest);
  if (!choice || !rest.empty()) return send_error(kBadRequest);
  if (!choice->all && !choice->any) (general ? general_cpu_ : control_cpu_) = choice->cpu;
  send_ok();
}

void Session::is_thread_alive(std::string_view rest) {
  const auto choice = take_thread(rest);
  if (!choice || !rest.empty()) return send_error(kBadRequest);
  send_ok();
}

void Session::breakpoint(std::string_view rest, bool insert) {
  const auto kind = take_hex(rest);
  if (!kind || rest.empty() || rest.front() != ',') return send_error(kBadRequest);
  if (*kind > static_cast<std::uint64_t>(BreakpointKind::kAccess)) return send("");
  rest.remove_prefix(1);
  const auto range = take_range(rest);
  if (!range) return send_error(kBadRequest);
  const auto conditions = take_conditions(rest);
  // Commands were not offered.
  if (!conditions || !rest.empty()) return send_error(kBadRequest);
  Breakpoint point{static_cast<BreakpointKind>(*kind), range->address, 1};
  if (point.kind != BreakpointKind::kSoftware && point.kind != BreakpointKind::kHardware) {
    point.size = range->size;
  }
  if (!insert) return send_done(target_.remove(point));
  auto done = target_.insert(general_cpu_, point);
  const bool code =
      point.kind == BreakpointKind::kSoftware || point.kind == BreakpointKind::kHardware;
  if (done && code) done = target_.set_conditions(point, *conditions);
  send_done(done);
}

// ";X" length "," code, once or more: as many conditions. gdb writes them without a semicolon in
// between.
std::optional<std::vector<StopCondition>> Session::take_conditions(std::string_view& text) {
  std::vector<StopCondition> conditions;
  while (!text.empty() && (text.front() == ';' || text.front() == 'X')) {
    if (text.front() == ';') text.remove_prefix(1);
    if (text.empty() || text.front() != 'X') return std::nullopt;
    text.remove_prefix(1);
    const auto size = take_hex(text);
    if (!size || text.empty() || text.front() != ',') return std::nullopt;
    text.remove_prefix(1);
    if (*size > text.size() / 2) return std::nullopt;
    auto code = from_hex(text.substr(0, static_cast<std::size_t>(*size) * 2));
    if (!code) return std::nullopt;
    text.remove_prefix(code->size() * 2);
    // It may outlive this conversation: it shares what the registers' numbers mean.
    conditions.push_back(
        [code = *std::move(code), registers = shared_map()](const ConditionContext& context) {
          return condition_holds(code, *registers, context);
        });
  }
  return conditions;
}

void Session::resume_all(std::string_view rest, ResumeAction::Kind kind, bool has_signal) {
  if (has_signal) {
    if (!take_hex(rest)) return send_error(kBadRequest);
    if (!rest.empty() && rest.front() == ';') rest.remove_prefix(1);
  }
  if (!rest.empty()) {
    const auto address = take_hex(rest);
    if (!address || !rest.empty()) return send_error(kBadRequest);
    auto state = target_.state(control_cpu_);
    if (!state) return send_error(kNoAccess);
    state->set_linear_pc(*address);
    state->msrs = {};
    if (!target_.set_state(control_cpu_, *state)) return send_error(kNoAccess);
  }
  std::vector<ResumeAction> actions(target_.cpus(), {ResumeAction::Kind::kContinue});
  if (control_cpu_ < actions.size()) actions[control_cpu_].kind = kind;
  resume(actions);
}

void Session::resume(std::span<const ResumeAction> actions) {
  go([&] { return target_.resume(actions); });
}

bool Session::resume_back(std::string_view rest) {
  if (rest != "s" && rest != "c") return false;
  const auto kind = rest == "s" ? ResumeAction::Kind::kStep : ResumeAction::Kind::kContinue;
  go([&] { return target_.resume_back(kind); });
  return true;
}

}  // namespace vmm::debug
