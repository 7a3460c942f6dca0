// What the flight recorder holds as text, and as a trace for chrome://tracing and Perfetto.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>

namespace vmm::cli {

// `cpus` are the answers to `trace`, one for each CPU in their order, `events` that to `events`.
// Throws json::exception when one is no such answer.

// A line an exit, an interrupt and a request, all in the order of time, seconds before the last one
// first.
std::string trace_text(std::span<const nlohmann::json> cpus, const nlohmann::json& events);

// The JSON object format of Chrome's trace viewer: a track for each CPU, with a slice for each exit
// and for the guest's time between two of them, and the interrupts that it was given; one for lines
// and messages; and one for each device, with a span for each request that was answered.
std::string chrome_trace(std::span<const nlohmann::json> cpus, const nlohmann::json& events);

}  // namespace vmm::cli
