// `vmm doctor`.
#pragma once

#include <string>

#include "cli/options.h"
#include "vmm/doctor/report.h"

namespace vmm::cli {

// Looks at the host and prints. Returns the exit status.
int doctor_command(const DoctorCommand& command);

std::string doctor_text(const DoctorReport& report);
// One JSON object; docs/doctor.md names its members.
std::string doctor_json(const DoctorReport& report);

}  // namespace vmm::cli
