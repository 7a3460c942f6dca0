// A machine for the debugger's protocol: registers, a little memory, and a record of what was
// asked.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "vmm/debug/target.h"

namespace vmm::test {

class FakeDebugTarget final : public debug::Target {
 public:
  static constexpr std::uint64_t kMemory = 0x1000;  // where memory[0] lies, virtual and physical

  explicit FakeDebugTarget(unsigned cpus = 2) : cpus_(cpus) {
    for (unsigned i = 0; i < cpus; ++i) {
      debug::CpuState state;
      state.system.efer = x86::kEferLme | x86::kEferLma;
      state.system.cs.long_mode = true;
      state.xsave.resize(4096);
      state.general.rip = 0x1000 + i;
      states.push_back(state);
    }
  }

  std::vector<debug::CpuState> states;
  std::string memory = std::string(256, 'm');
  std::vector<std::string> log;  // what was asked for
  std::vector<debug::ResumeAction> actions;
  std::optional<Error> refusal;  // of the next insert, resume or interrupt
  debug::StopEvent next_stop{};
  bool basic_registers_only = false;  // are there for conditions
  std::optional<std::uint64_t> offset;
  std::optional<debug::Symbols::Segments> segments;
  debug::Architecture described = debug::Architecture::kX86_64;

  unsigned cpus() const override { return cpus_; }
  Result<debug::StopEvent> interrupt() override {
    log.emplace_back("interrupt");
    VMM_TRY(refuse());
    return next_stop;
  }
  Result<void> resume(std::span<const debug::ResumeAction> wanted) override {
    VMM_TRY(refuse());
    actions.assign(wanted.begin(), wanted.end());
    log.emplace_back("resume");
    return {};
  }
  Result<void> resume_back(debug::ResumeAction::Kind kind) override {
    VMM_TRY(refuse());
    log.emplace_back(kind == debug::ResumeAction::Kind::kStep ? "step back" : "continue back");
    return {};
  }
  void detach() override { log.emplace_back("detach"); }
  void kill() override { log.emplace_back("kill"); }
  Result<debug::CpuState> state(unsigned cpu) override { return states.at(cpu); }
  Result<void> set_state(unsigned cpu, const debug::CpuState& state) override {
    const auto msrs = states.at(cpu).msrs;
    states.at(cpu) = state;
    for (std::size_t i = 0; i < msrs.size(); ++i) {
      if (!state.msrs[i]) states.at(cpu).msrs[i] = msrs[i];
    }
    return {};
  }
  std::string activity(unsigned cpu) override { return cpu == 0 ? "running" : "halted"; }
  debug::Architecture architecture(unsigned) override { return described; }
  Result<std::size_t> read_memory(unsigned, debug::Space space, std::uint64_t address,
                                  std::span<std::byte> bytes) override {
    log.push_back(fmt::format("read {} {:#x} {}",
                              space == debug::Space::kPhysical ? "physical" : "virtual", address,
                              bytes.size()));
    if (address < kMemory || address >= kMemory + memory.size()) {
      return fail(ErrorCode::kOutOfRange, "nothing there");
    }
    const std::size_t n = std::min<std::size_t>(bytes.size(), kMemory + memory.size() - address);
    std::copy_n(
        std::as_bytes(std::span(memory)).begin() + static_cast<std::ptrdiff_t>(address - kMemory),
        n, bytes.begin());
    return n;
  }
  Result<void> write_memory(unsigned, debug::Space, std::uint64_t address,
                            std::span<const std::byte> bytes) override {
    if (address < kMemory || address - kMemory > memory.size() ||
        bytes.size() > memory.size() - (address - kMemory)) {
      return fail(ErrorCode::kOutOfRange, "nothing there");
    }
    std::copy(bytes.begin(), bytes.end(),
              std::as_writable_bytes(std::span(memory)).begin() +
                  static_cast<std::ptrdiff_t>(address - kMemory));
    return {};
  }
  Result<void> insert(unsigned, const debug::Breakpoint& point) override {
    VMM_TRY(refuse());
    log.push_back(describe("insert", point));
    return {};
  }
  Result<void> remove(const debug::Breakpoint& point) override {
    log.push_back(describe("remove", point));
    return {};
  }
  // How many, and what they say of CPU 0.
  Result<void> set_conditions(const debug::Breakpoint& point,
                              std::vector<debug::StopCondition> conditions) override {
    if (conditions.empty()) return {};
    std::string text = describe("conditions", point);
    const debug::ConditionContext context{
        states.at(0),
        [this](std::uint64_t address, std::span<std::byte> bytes) {
          const auto read = read_memory(0, debug::Space::kVirtual, address, bytes);
          return read && *read == bytes.size();
        },
        !basic_registers_only};
    for (const debug::StopCondition& condition : conditions) {
      text += condition(context) ? " yes" : " no";
    }
    log.push_back(std::move(text));
    return {};
  }
  std::vector<std::pair<std::uint64_t, std::uint64_t>> ram() const override {
    return {{kMemory, memory.size()}};
  }
  std::optional<std::uint64_t> kernel_offset() override { return offset; }
  std::optional<debug::Symbols::Segments> kernel_segments() override { return segments; }
  Result<std::string> monitor(unsigned cpu, std::string_view command) override {
    return fmt::format("CPU {}: {}\n", cpu, command);
  }

 private:
  static std::string describe(const char* what, const debug::Breakpoint& point) {
    return fmt::format("{} {} {:#x} {}", what, static_cast<int>(point.kind), point.address,
                       point.size);
  }
  Result<void> refuse() {
    if (!refusal) return {};
    Error error = std::move(*refusal);
    refusal.reset();
    return tl::unexpected<Error>(std::move(error));
  }
  unsigned cpus_;
};

// A request as gdb sends it: escaped, and never shortened.
inline std::string frame_request(std::string_view payload) {
  std::string text = "$";
  std::uint8_t sum = 0;
  const auto put = [&](char c) {
    text += c;
    sum = static_cast<std::uint8_t>(sum + static_cast<unsigned char>(c));
  };
  for (const char c : payload) {
    if (c == '#' || c == '$' || c == '}' || c == '*') {
      put('}');
      put(static_cast<char>(c ^ 0x20));
    } else {
      put(c);
    }
  }
  return text + fmt::format("#{:02x}", sum);
}

// What a client makes of a packet: escapes and run lengths undone (GDB manual, "Overview").
inline std::string decode_payload(std::string_view wire) {
  std::string text;
  for (std::size_t i = 0; i < wire.size(); ++i) {
    if (wire[i] == '}' && i + 1 < wire.size()) {
      text += static_cast<char>(wire[++i] ^ 0x20);
    } else if (wire[i] == '*' && i + 1 < wire.size() && !text.empty()) {
      text.append(static_cast<std::size_t>(wire[++i] - 29), text.back());
    } else {
      text += wire[i];
    }
  }
  return text;
}

}  // namespace vmm::test
