// The flight recorder's exits as text, and as a trace for chrome://tracing and Perfetto.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>

namespace vmm::cli {

// `cpus` are the answers to `trace`, one for each CPU in their order. Throws json::exception when
// one is no such answer.

// A line an exit, all CPUs in the order of time, seconds before the last one first.
std::string trace_text(std::span<const nlohmann::json> cpus);

// The JSON object format of Chrome's trace viewer: a track for each CPU, a slice for each exit and
// for the guest's time between two of them.
std::string chrome_trace(std::span<const nlohmann::json> cpus);

}  // namespace vmm::cli
