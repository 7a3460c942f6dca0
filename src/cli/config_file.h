// Options of `vmm run` from a JSON file.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "cli/run_options.h"

namespace vmm::cli {

// {"kernel": "bzImage", "mem": "1G", "cpus": 2, "kaslr": true, "quirk": ["syscall-fixup=off"]}:
// each key is an option's long name, each value what the command line would have; paths are
// relative to the working directory. Errors: kBadConfig, for a file that cannot be read or is not
// JSON (with line and column). Keys and values that do not fit are sentences in `problems`, each
// with the file's name and the key.
Result<RawOptions> read_config_file(const std::string& path, std::vector<std::string>& problems);

// The same for text at hand; `name` stands for the file in messages.
Result<RawOptions> parse_config(std::string_view text, const std::string& name,
                                std::vector<std::string>& problems);

}  // namespace vmm::cli
