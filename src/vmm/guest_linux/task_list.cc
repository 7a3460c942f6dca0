#include "vmm/guest_linux/task_list.h"

#include <fmt/format.h>

#include <array>

#include "vmm/guest_linux/kernel_list.h"

namespace vmm::guest_linux {
namespace {

constexpr auto kStructs = std::to_array<std::string_view>({"task_struct", "signal_struct"});
constexpr std::size_t kMostTasks = 65536;
constexpr std::size_t kNameSize = 16;  // TASK_COMM_LEN

// include/linux/sched.h
constexpr std::uint64_t kInterruptible = 0x1, kUninterruptible = 0x2, kStopped = 0x4, kTraced = 0x8,
                        kParked = 0x40, kNoLoad = 0x400;
constexpr std::uint64_t kExitDead = 0x10, kExitZombie = 0x20;

char state_letter(std::uint64_t state, std::uint64_t exit) {
  if ((exit & kExitZombie) != 0) return 'Z';
  if ((exit & kExitDead) != 0) return 'X';
  if ((state & kUninterruptible) != 0) return (state & kNoLoad) != 0 ? 'I' : 'D';
  if ((state & kInterruptible) != 0) return 'S';
  if ((state & kStopped) != 0) return 'T';
  if ((state & kTraced) != 0) return 't';
  if ((state & kParked) != 0) return 'P';
  return state == 0 ? 'R' : '?';
}

class Reader {
 public:
  static Result<Reader> open(const GuestKernel& kernel) {
    Reader reader(kernel.memory());
    const Layouts layouts = VMM_TRY(kernel.layouts(kStructs));
    const auto field = [&](std::string_view name) { return layouts.field("task_struct", name); };
    reader.tasks_ = VMM_TRY(field("tasks")).offset;
    reader.thread_ = VMM_TRY(field("pid")).offset;
    reader.process_ = VMM_TRY(field("tgid")).offset;
    reader.parent_ = VMM_TRY(field("real_parent")).offset;
    reader.name_ = VMM_TRY(field("comm")).offset;
    reader.memory_map_ = VMM_TRY(field("mm")).offset;
    reader.exit_ = VMM_TRY(field("exit_state")).offset;
    reader.signal_ = VMM_TRY(field("signal")).offset;
    reader.node_ = VMM_TRY(field("thread_node")).offset;
    reader.threads_ = VMM_TRY(layouts.offset("signal_struct", "thread_head"));
    // Linux 5.14 gave it another name.
    const Field* const old = layouts.find("task_struct", "state");
    reader.state_ = old != nullptr ? *old : VMM_TRY(field("__state"));
    if (const Field* const on = layouts.find("task_struct", "on_cpu")) reader.on_cpu_ = *on;
    reader.find_cpu(layouts);
    return reader;
  }

  std::uint64_t tasks() const noexcept { return tasks_; }

  Result<Task> read(std::uint64_t at) const {
    Task task{.address = at,
              .thread = VMM_TRY(memory_->read<std::int32_t>(at + thread_)),
              .process = VMM_TRY(memory_->read<std::int32_t>(at + process_)),
              .name = VMM_TRY(memory_->text(at + name_, kNameSize))};
    const auto parent = VMM_TRY(memory_->read<std::uint64_t>(at + parent_));
    task.parent = VMM_TRY(memory_->read<std::int32_t>(parent + process_));
    task.kernel_thread = VMM_TRY(memory_->read<std::uint64_t>(at + memory_map_)) == 0;
    task.state = state_letter(VMM_TRY(memory_->integer(at + state_.offset, state_.size)),
                              VMM_TRY(memory_->read<std::uint32_t>(at + exit_)));
    if (on_cpu_) task.on_cpu = VMM_TRY(memory_->integer(at + on_cpu_->offset, on_cpu_->size)) != 0;
    if (cpu_) task.cpu = VMM_TRY(memory_->read<std::uint32_t>(at + *cpu_));
    return task;
  }

  // A process with all its threads.
  Result<void> add(std::uint64_t at, TaskList& list) const {
    Task first = VMM_TRY(read(at));
    const bool kernel_thread = first.kernel_thread;
    list.tasks.push_back(std::move(first));
    if (kernel_thread) return {};
    const auto signal = VMM_TRY(memory_->read<std::uint64_t>(at + signal_));
    const std::string cut =
        for_each_node(*memory_, signal + threads_, kMostTasks - list.tasks.size(),
                      [&](std::uint64_t node) -> Result<void> {
                        if (node - node_ == at) return {};
                        list.tasks.push_back(VMM_TRY(read(node - node_)));
                        return {};
                      });
    if (!cut.empty()) return fail(ErrorCode::kBadState, "{}", cut);
    return {};
  }

 private:
  explicit Reader(const KernelMemory& memory) : memory_(&memory) {}

  // In struct thread_info, with which a task begins, before Linux 5.16 in its own.
  void find_cpu(const Layouts& layouts) {
    if (const Field* const own = layouts.find("task_struct", "cpu")) cpu_ = own->offset;
    if (const Field* const inner = layouts.find("task_struct", "thread_info.cpu")) {
      cpu_ = inner->offset;
    }
  }

  const KernelMemory* memory_;
  std::uint64_t tasks_ = 0, thread_ = 0, process_ = 0, parent_ = 0, name_ = 0, memory_map_ = 0;
  std::uint64_t exit_ = 0, signal_ = 0, node_ = 0, threads_ = 0;
  Field state_;
  std::optional<Field> on_cpu_;
  std::optional<std::uint64_t> cpu_;
};

}  // namespace

Result<TaskList> read_tasks(const GuestKernel& kernel) {
  const Reader reader = VMM_TRY(Reader::open(kernel));
  const std::uint64_t first = VMM_TRY(kernel.symbol("init_task"));
  TaskList list{.tasks = {VMM_TRY(reader.read(first))}, .cut = {}};
  list.cut = for_each_node(kernel.memory(), first + reader.tasks(), kMostTasks,
                           [&](std::uint64_t node) -> Result<void> {
                             if (list.tasks.size() >= kMostTasks) {
                               return fail(ErrorCode::kBadState, "it has too many tasks");
                             }
                             return reader.add(node - reader.tasks(), list);
                           });
  return list;
}

std::string format_tasks(const TaskList& list) {
  std::string text =
      fmt::format("{:<18} {:>7} {:>7} {:>7} {:>4} S NAME\n", "TASK", "PID", "TID", "PPID", "CPU");
  for (const Task& task : list.tasks) {
    const std::string cpu = task.cpu ? fmt::format("{}", *task.cpu) : std::string("?");
    const std::string name = task.kernel_thread ? fmt::format("[{}]", task.name) : task.name;
    text += fmt::format("{:#018x} {:>7} {:>7} {:>7} {:>3}{} {} {}\n", task.address, task.process,
                        task.thread, task.parent, cpu, task.on_cpu ? '*' : ' ', task.state, name);
  }
  if (!list.cut.empty()) text += fmt::format("These are not all: {}.\n", list.cut);
  return text;
}

}  // namespace vmm::guest_linux
