// How one step of completing an instruction ended.
#pragma once

#include <string>
#include <utility>

#include "vmm/completion/cpu.h"
#include "vmm/x86/registers.h"

namespace vmm::completion {

struct Step {
  enum class Kind : std::uint8_t {
    kDone,    // go on; at the end of a rule: the instruction is finished, RIP moves behind it
    kJump,    // at the end of a rule: finished, and the registers say where it goes on
    kRepeat,  // nothing happened: the guest executes the instruction once more
    kEvent,   // `event`, with RIP at the instruction (a fault)
    kTrap,    // `event`, with RIP behind the instruction
    kCannot,  // `reason`
  };
  Kind kind = Kind::kDone;
  Event event{};
  std::string reason{};

  bool done() const noexcept { return kind == Kind::kDone; }

  static Step ok() { return {}; }
  static Step jump() { return {Kind::kJump, {}, {}}; }
  static Step repeat() { return {Kind::kRepeat, {}, {}}; }
  static Step fault(x86::Vector vector) {
    return {Kind::kEvent, {static_cast<std::uint8_t>(vector)}, {}};
  }
  static Step fault(x86::Vector vector, std::uint32_t error_code) {
    return {Kind::kEvent, {static_cast<std::uint8_t>(vector), error_code}, {}};
  }
  static Step page_fault(std::uint64_t address, std::uint32_t error_code) {
    return {Kind::kEvent,
            {static_cast<std::uint8_t>(x86::Vector::kPageFault), error_code, address},
            {}};
  }
  static Step undefined() { return fault(x86::Vector::kInvalidOpcode); }
  static Step general_protection() { return fault(x86::Vector::kGeneralProtection, 0); }
  static Step trap(Event event) { return {Kind::kTrap, event, {}}; }
  static Step cannot(std::string why) { return {Kind::kCannot, {}, std::move(why)}; }
};

}  // namespace vmm::completion

// Goes on when a Result<Step> is a done step; returns it from the enclosing function otherwise.
#define VMM_STEP(expression)                                \
  do {                                                      \
    ::vmm::completion::Step vmm_step = VMM_TRY(expression); \
    if (!vmm_step.done()) return vmm_step;                  \
  } while (false)
