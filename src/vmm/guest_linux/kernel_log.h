// A Linux kernel's log, as dmesg(1) shows it, from the ring buffer in its memory
// (kernel/printk/printk_ringbuffer.h, Linux 5.10 and later).
//
// Threats: sizes, numbers and texts are the guest's: sizes are bounded, each record is read once,
// texts are cut to their block and made printable.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "vmm/guest_linux/guest_kernel.h"

namespace vmm::guest_linux {

struct LogRecord {
  std::uint64_t sequence = 0;
  std::uint64_t nanoseconds = 0;
  std::string text;  // printable, and line feeds
};

// The newest `most` records at most, and no more than 4 MiB of text, in order. Errors:
// kUnsupported, with what is missing; kBadState, the buffer makes no sense.
Result<std::vector<LogRecord>> read_kernel_log(const GuestKernel& kernel, std::size_t most);

// Lines "[    1.234567] text".
std::string format_kernel_log(const std::vector<LogRecord>& records);

}  // namespace vmm::guest_linux
