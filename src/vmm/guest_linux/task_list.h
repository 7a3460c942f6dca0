// The tasks of a Linux guest, as ps(1) shows them, from the structures in its memory.
//
// Threats: lists are the guest's: they may lead anywhere, and end at a bound.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "vmm/guest_linux/guest_kernel.h"

namespace vmm::guest_linux {

struct Task {
  std::uint64_t address = 0;  // of its struct task_struct
  std::int32_t thread = 0;    // what the kernel calls pid
  std::int32_t process = 0;   // and tgid
  std::int32_t parent = 0;    // the process that is its parent
  char state = '?';           // as ps(1) has it: R S D T t I X Z P
  bool kernel_thread = false;
  bool on_cpu = false;                    // a CPU is executing it
  std::optional<std::uint32_t> cpu = {};  // where it is or was last
  std::string name = {};                  // at most 15 characters, printable
};

struct TaskList {
  std::vector<Task> tasks;
  std::string cut;  // why these are not all; empty: they are
};

// Processes in the kernel's order, the idle task of the first CPU first, each with its threads.
// 65536 at most. Errors: kUnsupported, with what is missing; kOutOfRange, the first one is not
// there.
Result<TaskList> read_tasks(const GuestKernel& kernel);

// A table with a line a task.
std::string format_tasks(const TaskList& list);

}  // namespace vmm::guest_linux
