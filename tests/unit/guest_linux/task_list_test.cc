#include "vmm/guest_linux/task_list.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fake_kernel.h"

namespace vmm::guest_linux {
namespace {

using testing::HasSubstr;

constexpr std::uint64_t kInit = 0x10000, kOne = 0x20000, kTwo = 0x30000, kThread = 0x40000;
constexpr std::uint64_t kTasks = 64, kNode = 80, kSignal = 0x50000;

class TaskListTest : public testing::Test {
 protected:
  TaskListTest() {
    BtfMaker btf;
    const auto word = btf.integer(8), half = btf.integer(4), letter = btf.integer(1);
    const auto list = btf.structure("list_head", 16, {{"next", word, 0}, {"prev", word, 8}});
    const auto info = btf.structure("thread_info", 16, {{"flags", word, 0}, {"cpu", half, 12}});
    btf.structure("signal_struct", 64, {{"thread_head", list, 16}});
    btf.structure("task_struct", 256,
                  {{"thread_info", info, 0},
                   {"__state", half, 16},
                   {"on_cpu", half, 20},
                   {"tasks", list, kTasks},
                   {"thread_node", list, kNode},
                   {"pid", half, 96},
                   {"tgid", half, 100},
                   {"real_parent", word, 104},
                   {"comm", btf.array(letter, 16), 112},
                   {"mm", word, 128},
                   {"exit_state", half, 136},
                   {"signal", word, 144}});
    kernel_.put_btf(btf);
    kernel_.symbol("init_task", kInit);
    put_task(kInit, 0, 0, kInit, "swapper/0", 0);
    put_task(kOne, 1, 1, kInit, "init", 1);
    put_task(kTwo, 2, 2, kInit, "kthreadd", 0);
    put_task(kThread, 3, 1, kInit, "worker", 1);
    link({kInit + kTasks, kOne + kTasks, kTwo + kTasks});
    kernel_.put(kOne + 144, FakeKernel::kBase + kSignal);
    link({kSignal + 16, kOne + kNode, kThread + kNode});
    kernel_.put(kOne + 16, std::uint32_t{1});
    kernel_.put(kTwo + 16, std::uint32_t{0x402});
    kernel_.put(kThread + 20, std::uint32_t{1});
    kernel_.put(kThread + 12, std::uint32_t{3});
  }

  void put_task(std::uint64_t at, std::uint32_t pid, std::uint32_t tgid, std::uint64_t parent,
                std::string_view name, std::uint64_t mm) {
    kernel_.put(at + 96, pid);
    kernel_.put(at + 100, tgid);
    kernel_.put(at + 104, FakeKernel::kBase + parent);
    kernel_.put_text(at + 112, name);
    kernel_.put(at + 128, mm);
  }

  // A list of these nodes, the first its head.
  void link(const std::vector<std::uint64_t>& nodes) {
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      kernel_.put(nodes[i], FakeKernel::kBase + nodes[(i + 1) % nodes.size()]);
    }
  }

  std::string tasks() {
    const auto kernel = kernel_.open();
    if (!kernel) return "error: " + kernel.error().message();
    const auto list = read_tasks(*kernel);
    return list ? format_tasks(*list) : "error: " + list.error().message();
  }

  FakeKernel kernel_;
};

TEST_F(TaskListTest, ProcessesWithTheirThreads) {
  EXPECT_EQ(tasks(),
            "TASK                   PID     TID    PPID  CPU S NAME\n"
            "0xffffffff80010000       0       0       0   0  R [swapper/0]\n"
            "0xffffffff80020000       1       1       0   0  S init\n"
            "0xffffffff80040000       1       3       0   3* R worker\n"
            "0xffffffff80030000       2       2       0   0  I [kthreadd]\n");
}

TEST_F(TaskListTest, ListThatLeadsInACircle) {
  kernel_.put(kTwo + kTasks, FakeKernel::kBase + kOne + kTasks);
  EXPECT_THAT(tasks(),
              HasSubstr("[kthreadd]\nThese are not all: the list is broken: it goes in a circle"));
}

TEST_F(TaskListTest, ThreadsThatLeadInACircle) {
  kernel_.put(kThread + kNode, FakeKernel::kBase + kThread + kNode);
  EXPECT_THAT(tasks(), HasSubstr("worker\nThese are not all"));
}

TEST_F(TaskListTest, PointersThatLeadNowhere) {
  kernel_.put(kOne + kTasks, std::uint64_t{0x1238});
  EXPECT_THAT(tasks(),
              HasSubstr("These are not all: the list is broken: No CPU's page tables map"));
  kernel_.put(kOne + 104, ~std::uint64_t{0});
  EXPECT_THAT(tasks(), HasSubstr("swapper/0]\nThese are not all"));
  kernel_.put(kInit + 104, std::uint64_t{0});
  EXPECT_THAT(tasks(), HasSubstr("error: No CPU's page tables map"));
}

// Each task's list of threads is the first task's: all of them again and again.
TEST_F(TaskListTest, MoreTasksThanAnyHas) {
  constexpr std::uint64_t kMany = 2000, kSize = 512, kFirst = 0x60000;
  std::vector<std::uint64_t> list{kInit + kTasks}, threads{kSignal + 16};
  for (std::uint64_t i = 0; i < kMany; ++i) {
    const std::uint64_t at = kFirst + i * kSize;
    put_task(at, 1, 1, kInit, "many", 1);
    kernel_.put(at + 144, FakeKernel::kBase + kSignal);
    list.push_back(at + kTasks);
    threads.push_back(at + kNode);
  }
  link(list);
  link(threads);
  const auto kernel = kernel_.open();
  ASSERT_TRUE(kernel);
  const auto read = read_tasks(*kernel);
  ASSERT_TRUE(read);
  EXPECT_LE(read->tasks.size(), 65536u);
  EXPECT_THAT(read->cut, HasSubstr("more"));
}

TEST_F(TaskListTest, NamesThatATerminalWouldActUpon) {
  kernel_.put_text(kOne + 112, "\033[2J");
  EXPECT_THAT(tasks(), HasSubstr(" S \\x1b[2J\n"));
}

}  // namespace
}  // namespace vmm::guest_linux
