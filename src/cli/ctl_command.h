// `vmm ctl`: one command to a running guest, through its control socket.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "cli/options.h"

namespace vmm::cli {

// Prints the outcome, or what went wrong in one line on stderr; the exit status.
int ctl_command(const CtlCommand& command);

// The request that these words stand for, in one line. Errors: kBadConfig.
Result<std::string> control_request(const std::vector<std::string>& words);

// What a person wants to read of an answer; nothing for a mere "done". Errors: kIo, with the
// answer's own words, when it is an error or no answer at all.
Result<std::string> control_answer_text(std::string_view answer, bool json);

}  // namespace vmm::cli
