// What the command says about a guest, as text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "vmm/console/console_backend.h"
#include "vmm/vm.h"

namespace vmm::cli {

// How a guest ended, in one line without "vmm: ": "guest powered off". `quit_why` says who asked
// for the end, when somebody did.
std::string end_text(const StopInfo& stop, std::string_view quit_why);

// Lines for the menu and for --verbose.
std::string statistics_text(const VmStats& vm, const ConsoleStats& console);
std::string processor_text(std::uint32_t id, const x86::Registers& registers,
                           const x86::SystemRegisters& system);

}  // namespace vmm::cli
