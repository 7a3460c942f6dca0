#include "cli/trace_command.h"

#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <vector>

#include "cli/control_client.h"
#include "cli/exit_code.h"
#include "cli/trace_text.h"
#include "cli/write_output.h"

namespace vmm::cli {
namespace {

using nlohmann::json;

Result<std::vector<json>> ask_for_exits(const TraceCommand& command) {
  std::vector<json> cpus;
  std::size_t count = 1;
  while (cpus.size() < count) {
    json answer = VMM_TRY(ask_control(command.socket, "trace", {{"cpu", cpus.size()}}));
    if (cpus.empty()) count = answer.value("cpus", std::size_t{1});
    cpus.push_back(std::move(answer));
  }
  return cpus;
}

Result<std::string> text_of(const TraceCommand& command) {
  const std::vector<json> cpus = VMM_TRY(ask_for_exits(command));
  const json events = VMM_TRY(ask_control(command.socket, "events", json::object()));
  try {
    return command.chrome ? chrome_trace(cpus, events) : trace_text(cpus, events);
  } catch (const json::exception& error) {
    return fail(ErrorCode::kIo, "The answer cannot be understood: {}", error.what());
  }
}

}  // namespace

int trace_command(const TraceCommand& command) {
  const auto text = text_of(command);
  const Result<void> done = text ? write_output(command.output, *text)
                                 : Result<void>(tl::unexpected<Error>(text.error()));
  if (done) return kExitOk;
  std::fputs(fmt::format("vmm trace: {}\n", done.error().message()).c_str(), stderr);
  return exit_code(done.error());
}

}  // namespace vmm::cli
