// A debugger for a guest, in a page or two: breakpoints, steps, registers, code, memory, callers.
//
//   examples/step_debugger       a demonstration
//   examples/step_debugger -     commands from standard input; "help" lists them
#include <fmt/format.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <optional>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "vmm/debug/symbols.h"
#include "vmm/disassemble.h"
#include "vmm/vm.h"
#include "vmm_testing/guest_code.h"

namespace {

// The factorial of 5, recursively, to the debug-exit port.
VMM_GUEST_CODE(kGuest, R"(
    xor %ebp, %ebp
    mov $5, %edi
    call .Lstep_factorial
    out %eax, $0xf4
  .Lstep_end:
    jmp .Lstep_end
  .globl step_factorial
  .hidden step_factorial
  step_factorial:
  .Lstep_factorial:
    push %rbp
    mov %rsp, %rbp
    mov $1, %eax
    cmp $1, %edi
    jbe .Lstep_return
    push %rdi
    dec %edi
    call .Lstep_factorial
    pop %rdi
  .globl step_multiply
  .hidden step_multiply
  step_multiply:
    imul %edi, %eax
  .Lstep_return:
    pop %rbp
    ret
)");
extern "C" const std::byte step_factorial[], step_multiply[];

constexpr std::uint64_t kStart = 0x1000;
constexpr vmm::VcpuId kCpu{0};
constexpr std::chrono::seconds kPatience{30};

// Names as a kernel's System.map has them.
std::shared_ptr<const vmm::debug::Symbols> symbols() {
  const auto in_guest = [](const std::byte* label) {
    return kStart + static_cast<std::uint64_t>(label - kGuest.bytes().data());
  };
  auto parsed = vmm::debug::Symbols::parse_map(
      fmt::format("{:016x} T start\n{:016x} T factorial\n{:016x} t multiply\n", kStart,
                  in_guest(step_factorial), in_guest(step_multiply)));
  return std::make_shared<const vmm::debug::Symbols>(parsed ? *std::move(parsed)
                                                            : vmm::debug::Symbols());
}

class Debugger {
 public:
  Debugger(vmm::Vm& vm, std::shared_ptr<const vmm::debug::Symbols> symbols)
      : vm_(vm), symbols_(std::move(symbols)) {}

  // One line of the user's. False: there is nothing more to debug.
  bool execute(const std::string& line) {
    std::istringstream words(line);
    std::string command;
    std::string argument;
    words >> command >> argument;
    if (command == "break") {
      add_breakpoint(argument);
    } else if (command == "clear") {
      breakpoints_.clear();
    } else if (command == "continue") {
      go_on();
    } else if (command == "step") {
      for (std::uint64_t i = number(argument, 1); i > 0 && !ended_; --i) step();
    } else if (command == "registers") {
      show_registers();
    } else if (command == "code") {
      show_code(number(argument, 5));
    } else if (command == "memory") {
      show_memory(argument);
    } else if (command == "callers") {
      show_callers();
    } else if (command == "quit") {
      return false;
    } else if (!command.empty()) {
      fmt::print(
          "break PLACE, clear, continue, step [N], registers, code [N], memory PLACE, callers, "
          "quit; a PLACE is a name, an address (0x...) or a register (rsp)\n");
    }
    return !ended_;
  }

  const std::optional<vmm::StopInfo>& ended() const { return ended_; }

 private:
  // Each function says what went wrong, and the session goes on.
  template <typename T>
  static bool failed(const vmm::Result<T>& result) {
    if (!result) fmt::print("{}\n", result.error().message());
    return !result;
  }

  static std::uint64_t number(const std::string& text, std::uint64_t otherwise) {
    char* end = nullptr;
    const std::uint64_t value = std::strtoull(text.c_str(), &end, 0);
    return text.empty() || *end != 0 ? otherwise : value;
  }

  std::optional<std::uint64_t> place(const std::string& text) const {
    if (const auto address = symbols_->find(text)) return address;
    const auto registers = vm_.registers(kCpu);
    for (std::size_t i = 0; registers && i < kNames.size(); ++i) {
      if (text == kNames[i]) return registers->gpr[i];
    }
    if (text.starts_with("0x")) return number(text, 0);
    fmt::print("'{}' is no place that I know\n", text);
    return std::nullopt;
  }

  void add_breakpoint(const std::string& text) {
    if (const auto address = place(text)) {
      breakpoints_.push_back(vmm::UntilAddress{vmm::Gva(*address)});
      fmt::print("breakpoint {} at {:#x}\n", breakpoints_.size(), *address);
    }
  }

  void go_on() {
    const auto result = vm_.run_until(breakpoints_, kPatience);
    if (failed(result)) return;
    if (result->met) {
      fmt::print("breakpoint {}\n", *result->met + 1);
      show_code(1);
    } else {
      stopped(result->stop);
    }
  }

  void step() {
    const auto stop = vm_.step(kCpu, kPatience);
    if (failed(stop)) return;
    if (stop->reason == vmm::StopReason::kCondition) {
      show_code(1);
    } else {
      stopped(*stop);
    }
  }

  void stopped(const vmm::StopInfo& stop) {
    fmt::print(
        "the guest has stopped: {} {}\n", vmm::to_string(stop.reason),
        stop.reason == vmm::StopReason::kDebugExit ? std::to_string(stop.value) : stop.detail);
    // After a deadline it may go on.
    if (stop.reason != vmm::StopReason::kDeadline) ended_ = stop;
  }

  void show_registers() const {
    const auto registers = vm_.registers(kCpu);
    if (failed(registers)) return;
    for (std::size_t i = 0; i < kNames.size(); ++i) {
      fmt::print("{:>4} {:016x}{}", kNames[i], registers->gpr[i], i % 4 == 3 ? "\n" : "");
    }
    fmt::print(" rip {:016x} flags {:08x}\n", registers->rip, registers->rflags);
  }

  void show_code(std::uint64_t most) const {
    const auto registers = vm_.registers(kCpu);
    const auto system = vm_.system_registers(kCpu);
    if (failed(registers) || failed(system)) return;
    std::array<std::byte, 64> bytes{};
    if (failed(vm_.read_virtual(kCpu, vmm::Gva(registers->rip), bytes))) return;
    const auto lines = vmm::disassemble(bytes, registers->rip, *system, most);
    if (failed(lines)) return;
    for (const vmm::CodeLine& line : *lines) {
      fmt::print("  {:#x} <{}>: {}\n", line.address, symbols_->name_of(line.address), line.text);
    }
  }

  void show_memory(const std::string& text) const {
    const auto address = place(text);
    std::array<std::uint64_t, 4> words{};
    if (!address || failed(vm_.read_virtual(kCpu, vmm::Gva(*address),
                                            std::as_writable_bytes(std::span(words))))) {
      return;
    }
    fmt::print("  {:#x}: {:#x} {:#x} {:#x} {:#x}\n", *address, words[0], words[1], words[2],
               words[3]);
  }

  void show_callers() const {
    const auto stacks = vm_.sample_stacks();
    if (failed(stacks) || stacks->empty()) return;
    for (const std::uint64_t frame : stacks->front().frames) {
      fmt::print("  {:#x} <{}>\n", frame, symbols_->name_of(frame));
    }
  }

  static constexpr std::array<std::string_view, 16> kNames{"rax", "rcx", "rdx", "rbx", "rsp", "rbp",
                                                           "rsi", "rdi", "r8",  "r9",  "r10", "r11",
                                                           "r12", "r13", "r14", "r15"};

  vmm::Vm& vm_;
  const std::shared_ptr<const vmm::debug::Symbols> symbols_;
  std::vector<vmm::Condition> breakpoints_;
  std::optional<vmm::StopInfo> ended_;
};

}  // namespace

int main(int argc, char** argv) {
  vmm::VmConfig config;
  config.memory.size = vmm::MiB(2);
  config.irqchip = vmm::IrqchipMode::kNone;
  config.boot = vmm::FlatBoot{.image = kGuest.image(), .address = vmm::Gpa(kStart)};
  const auto vm = vmm::Vm::create(std::move(config));
  if (!vm) {
    fmt::print(stderr, "step_debugger: {}\n", vm.error().message());
    return vm.error().code() == vmm::ErrorCode::kNoKvm ? 77 : 1;
  }
  Debugger debugger(**vm, symbols());
  if (argc > 1 && std::string_view(argv[1]) == "-") {
    std::string line;
    while (std::getline(std::cin, line) && debugger.execute(line)) {
    }
    return 0;
  }
  constexpr std::array kDemonstration{
      "break factorial", "continue",  "code",       "step 3",         "continue", "continue",
      "step 2",          "callers",   "memory rsp", "break multiply", "continue", "continue",
      "continue",        "registers", "step",       "clear",          "continue"};
  std::size_t done = 0;
  for (const char* const command : kDemonstration) {
    fmt::print("(vmm) {}\n", command);
    ++done;
    if (!debugger.execute(command)) break;
  }
  // Only the last command lets the guest come to its end, with 5! as its answer.
  const auto& end = debugger.ended();
  return done == kDemonstration.size() && end && end->reason == vmm::StopReason::kDebugExit &&
                 end->value == 120
             ? 0
             : 1;
}
