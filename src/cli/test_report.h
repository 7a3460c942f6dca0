// What `vmm test` tells, as texts.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "cli/test_outcome.h"

namespace vmm::cli {

// The lines of the Test Anything Protocol, version 13 (testanything.org): the plan, then a line for
// each test, and for a failed one its details as a YAML block.
std::string tap_plan(std::size_t tests);
std::string tap_result(std::size_t number, const TestOutcome& outcome);

// The format of JUnit as CI systems read it, with all consoles. Whatever the guests wrote, it is
// well-formed XML 1.0 in UTF-8.
std::string junit_xml(std::span<const TestOutcome> outcomes);

}  // namespace vmm::cli
