// Making, saving, resetting and cloning machines, beside the floor (snapshot_floor.h) in one
// process. In each round every contestant does each thing once; a line of output is one sample:
//
//   snapshot_bench ROUNDS FOLDER [ONLY]   MEASUREMENT <tab> CONTESTANT <tab> MICROSECONDS
//
// FOLDER is where files go. ONLY: one of create, reset, clone, snapshot, restore, for a profiler.
// bench/snapshots.py makes a table of it.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "snapshot_floor.h"
#include "vmm/vm.h"
#include "vmm_testing/guest_code.h"

namespace {

using namespace vmm;

constexpr std::uint64_t kPage = 4096;
constexpr Gpa kCount(0x2000);
constexpr std::uint64_t kFirstPage = MiB(1);

// Says for ever that it is there.
VMM_GUEST_CODE(kKnock, R"(
  .code16
1: out %al, $0xf4
  jmp 1b
)");
// Writes to as many pages from 1 MiB on as the word at 0x2000 says, and says so.
VMM_GUEST_CODE(kDirty, R"(
4: mov 0x2000, %ecx
  mov $0x100000, %ebx
1: test %ecx, %ecx
  jz 2f
  incq (%rbx)
  add $0x1000, %rbx
  dec %ecx
  jmp 1b
2: out %al, $0xf4
  jmp 4b
)");

// The same at CPL 3, where a software KVM has the processor execute it: with ports allowed (IOPL 3,
// a TSS with a map), as tests/guests/user_mode.inc does it.
VMM_GUEST_CODE(kDirtyAtCpl3, R"(
  sub $16, %rsp
  sgdt (%rsp)
  mov 2(%rsp), %rax
  movabs $0x890050000100, %rcx
  mov %rcx, 0x18(%rax)
  movq $0, 0x20(%rax)
  movw $0x68, 0x5066
  mov $0x18, %eax
  ltr %ax
  lea 5f(%rip), %rax
  push $0x2b
  push $0x7000
  push $0x3002
  push $0x33
  push %rax
  iretq
5: mov 0x2000, %ecx
  mov $0x100000, %ebx
6: test %ecx, %ecx
  jz 7f
  incq (%rbx)
  add $0x1000, %rbx
  dec %ecx
  jmp 6b
7: out %al, $0xf4
  jmp 5b
)");

template <typename T>
T must(Result<T> result) {
  if (!result) {
    std::fprintf(stderr, "snapshot_bench: %s\n", result.error().message().c_str());
    std::exit(1);
  }
  return *std::move(result);
}
void must(const Result<void>& result) {
  if (!result) must(Result<int>(tl::unexpected<Error>(result.error())));
}

double microseconds(const std::function<void()>& what) {
  const auto begin = std::chrono::steady_clock::now();
  what();
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin)
      .count();
}

void sample(bool counts, const char* measurement, const char* contestant, double us) {
  if (counts) std::printf("%s\t%s\t%.3f\n", measurement, contestant, us);
}

VmConfig machine(std::uint64_t memory, const vmm::testing::GuestCode& code, FlatMode mode) {
  VmConfig config;
  config.memory.size = memory;
  config.irqchip = IrqchipMode::kNone;
  config.boot = FlatBoot{.image = code.image(), .mode = mode};
  return config;
}

void run(Vm& vm) {
  const StopInfo stop = must(vm.run({.deadline = std::chrono::minutes(1)}));
  if (stop.reason != StopReason::kDebugExit) {
    std::fprintf(stderr, "snapshot_bench: %s\n", std::string(to_string(stop.reason)).c_str());
    std::exit(1);
  }
}

floor_vm* floor_of(std::uint64_t memory, int fd = -1, long offset = 0) {
  const auto code = kKnock.bytes();
  return floor_create(memory, fd, offset, fd < 0 ? code.data() : nullptr, code.size());
}

// Contestants by turns: the first one is another one in each round.
using Contestants = std::vector<std::pair<const char*, std::function<double()>>>;
void round_of(int round, const char* measurement, const Contestants& contestants) {
  for (std::size_t i = 0; i < contestants.size(); ++i) {
    const auto& [name, measure] =
        contestants[(i + static_cast<std::size_t>(round)) % contestants.size()];
    sample(round > 0, measurement, name, measure());
  }
}

void create_run_destroy(int rounds) {
  for (int round = 0; round <= rounds; ++round) {
    round_of(round, "create, run, destroy 2 MiB",
             {{"floor",
               [] {
                 return microseconds([] {
                   floor_vm* const vm = floor_of(MiB(2));
                   floor_run(vm);
                   floor_destroy(vm);
                 });
               }},
              {"vmm", [] {
                 return microseconds(
                     [] { run(*must(Vm::create(machine(MiB(2), kKnock, FlatMode::kReal)))); });
               }}});
  }
}

// A process that writes to as many pages of its own, and is gone.
double fork_and_dirty(std::byte* memory, std::uint64_t pages) {
  return microseconds([&] {
    const pid_t child = ::fork();
    if (child == 0) {
      for (std::uint64_t i = 0; i < pages; ++i)
        reinterpret_cast<volatile char&>(memory[i * kPage]) = 7;
      ::_exit(0);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
  });
}

// A guest that writes to pages, and the snapshot that it goes back to.
class Resettable {
 public:
  Resettable(std::uint64_t memory, const vmm::testing::GuestCode& code)
      : vm_(must(Vm::create(machine(memory, code, FlatMode::kLong)))) {
    // All pages are there from the start, as in a guest that has been running.
    must(vm_->memory().write(kCount, std::uint32_t{10000}));
    run(*vm_);
    snapshot_ = must(vm_->snapshot());
  }

  double reset_after(std::uint64_t pages) const {
    must(vm_->memory().write(kCount, static_cast<std::uint32_t>(pages)));
    run(*vm_);
    return microseconds([&] { must(vm_->reset_to(snapshot_)); });
  }

  void keep_out_of_forks() const {
    for (const GuestRegion& region : vm_->memory().regions()) {
      ::madvise(region.hva(), region.range().size(), MADV_DONTFORK);
    }
  }

 private:
  std::unique_ptr<Vm> vm_;
  std::shared_ptr<const Snapshot> snapshot_;
};

void reset(int rounds) {
  constexpr std::uint64_t kMemory = MiB(64);
  constexpr std::array<std::uint64_t, 4> kDirtied{10, 100, 1000, 10000};
  const Resettable kernel(kMemory, kDirty), user(kMemory, kDirtyAtCpl3);
  floor_vm* const floor = floor_of(kMemory);
  std::vector<unsigned char> copy(kMemory - kFirstPage, 1);
  std::memcpy(floor_memory(floor) + kFirstPage, copy.data(), copy.size());
  floor_run(floor);
  floor_state* const state = floor_save(floor);
  const auto name_of = [](std::uint64_t pages) {
    return "reset, " + std::to_string(pages) + " pages";
  };
  for (const std::uint64_t pages : kDirtied) {
    for (int round = 0; round <= rounds; ++round) {
      round_of(round, name_of(pages).c_str(),
               {{"memcpy and registers",
                 [&] {
                   unsigned char* const to = floor_memory(floor) + kFirstPage;
                   for (std::uint64_t i = 0; i < pages; ++i) to[i * kPage] = 7;
                   return microseconds([&] {
                     for (std::uint64_t i = 0; i < pages; ++i) {
                       std::memcpy(to + i * kPage, copy.data() + i * kPage, kPage);
                     }
                     floor_restore(floor, state);
                   });
                 }},
                {"vmm", [&] { return kernel.reset_after(pages); }},
                {"vmm, CPL 3", [&] { return user.reset_after(pages); }}});
    }
  }
  // Behind the others: a fork makes all that a process has copied on write, and whoever came next
  // would pay for it. Their memory is none of its business either.
  ::madvise(floor_memory(floor), kMemory, MADV_DONTFORK);
  kernel.keep_out_of_forks();
  user.keep_out_of_forks();
  for (const std::uint64_t pages : kDirtied) {
    for (int round = 0; round <= rounds; ++round) {
      sample(round > 0, name_of(pages).c_str(), "fork and exit",
             fork_and_dirty(reinterpret_cast<std::byte*>(copy.data()), pages));
    }
  }
  floor_destroy(floor);
}

// A file as long as the memory, of which `touched` bytes are there; for the floor.
int sparse_file(std::uint64_t memory, std::uint64_t touched, std::span<const std::byte> from) {
  const int fd = ::memfd_create("floor", MFD_CLOEXEC);
  if (fd < 0 || ::ftruncate(fd, static_cast<off_t>(memory)) != 0) std::abort();
  for (std::uint64_t at = 0; at < touched;) {
    const ssize_t n =
        ::pwrite(fd, from.data() + at, touched - at, static_cast<off_t>(kFirstPage + at));
    if (n <= 0) std::abort();
    at += static_cast<std::uint64_t>(n);
  }
  return fd;
}

void clone(int rounds) {
  constexpr std::uint64_t kMemory = MiB(256), kTouched = MiB(32);
  const auto vm = must(Vm::create(machine(kMemory, kKnock, FlatMode::kReal)));
  const std::vector<std::byte> noise(kTouched, std::byte{3});
  must(vm->memory().write(Gpa(kFirstPage), std::span<const std::byte>(noise)));
  run(*vm);
  const auto snapshot = must(vm->snapshot());
  const int file = sparse_file(kMemory, kTouched, noise);
  if (::pwrite(file, kKnock.bytes().data(), kKnock.bytes().size(), 0x1000) < 0) std::abort();
  floor_vm* const original = floor_of(kMemory);
  floor_run(original);
  floor_state* const state = floor_save(original);
  for (int round = 0; round <= rounds; ++round) {
    std::unique_ptr<Vm> ours;
    floor_vm* floor = nullptr;
    round_of(round, "clone of 256 MiB",
             {{"mmap and ioctls",
               [&] {
                 return microseconds([&] {
                   floor = floor_of(kMemory, file);
                   floor_restore(floor, state);
                   floor_run(floor);
                 });
               }},
              {"vmm", [&] {
                 return microseconds([&] {
                   ours = must(Vm::create(Snapshot::config(snapshot)));
                   run(*ours);
                 });
               }}});
    floor_destroy(floor);
  }
  floor_destroy(original);
  ::close(file);
}

void snapshot(int rounds) {
  constexpr std::uint64_t kMemory = GiB(1), kTouched = MiB(64);
  const auto vm = must(Vm::create(machine(kMemory, kKnock, FlatMode::kReal)));
  const std::vector<std::byte> noise(kTouched, std::byte{3});
  must(vm->memory().write(Gpa(kFirstPage), std::span<const std::byte>(noise)));
  run(*vm);
  for (int round = 0; round <= rounds; ++round) {
    round_of(round, "snapshot of 1 GiB, 64 MiB touched",
             {{"sparse copy",
               [&] {
                 int file = -1;
                 const double us =
                     microseconds([&] { file = sparse_file(kMemory, kTouched, noise); });
                 ::close(file);
                 return us;
               }},
              {"vmm", [&] {
                 std::shared_ptr<const Snapshot> made;
                 return microseconds([&] { made = must(vm->snapshot()); });
               }}});
  }
}

// A machine that goes on from a file; with userfaultfd when there is something about it.
std::unique_ptr<Vm> restored(const std::string& path, std::optional<FaultedMemory> faulted) {
  const auto snapshot = must(Snapshot::open(path));
  VmConfig config = Snapshot::config(snapshot);
  config.boot = SnapshotBoot{.snapshot = snapshot, .faulted = std::move(faulted)};
  return must(Vm::create(std::move(config)));
}

bool has_userfaultfd(const std::string& path) {
  const auto snapshot = must(Snapshot::open(path));
  VmConfig config = Snapshot::config(snapshot);
  config.boot = SnapshotBoot{.snapshot = snapshot, .faulted = FaultedMemory{}};
  return Vm::create(std::move(config)).has_value();
}

// From the file's name until the guest has written to as many pages.
void restore_and_work(int rounds, const std::string& folder) {
  constexpr std::uint64_t kPages = 4096;
  const std::string path = folder + "/work.snap";
  {
    const auto vm = must(Vm::create(machine(MiB(256), kDirty, FlatMode::kLong)));
    must(vm->memory().write(kCount, static_cast<std::uint32_t>(kPages)));
    run(*vm);
    must(vm->save(path));
  }
  const auto work = [&path](std::optional<FaultedMemory> faulted) {
    std::unique_ptr<Vm> vm;
    return microseconds([&] {
      vm = restored(path, std::move(faulted));
      run(*vm);
    });
  };
  Contestants contestants{{"vmm, mapped", [&] { return work(std::nullopt); }}};
  if (has_userfaultfd(path)) {
    const auto vm = restored(path, FaultedMemory{});
    run(*vm);
    const auto used = std::make_shared<const PageList>(must(vm->used_pages()));
    contestants.emplace_back("vmm, userfaultfd", [work] { return work(FaultedMemory{}); });
    contestants.emplace_back("vmm, prefetch",
                             [work, used] { return work(FaultedMemory{.prefetch = used}); });
  }
  for (int round = 0; round <= rounds; ++round) {
    round_of(round, "restore of 256 MiB and 4096 pages written", contestants);
  }
}

void restore(int rounds, const std::string& folder) {
  for (const std::uint64_t mib : {128, 2048}) {
    const std::string path = folder + "/" + std::to_string(mib) + ".snap";
    const auto vm = must(Vm::create(machine(MiB(mib), kKnock, FlatMode::kReal)));
    const std::vector<std::byte> noise(MiB(1), std::byte{3});
    must(vm->memory().write(Gpa(kFirstPage), std::span<const std::byte>(noise)));
    run(*vm);
    must(vm->save(path));
    const bool faults = has_userfaultfd(path);
    floor_vm* const original = floor_of(MiB(2));
    floor_run(original);
    floor_state* const state = floor_save(original);
    const std::string name = "restore of " + std::to_string(mib) + " MiB to its first instruction";
    for (int round = 0; round <= rounds; ++round) {
      std::unique_ptr<Vm> ours, faulted;
      floor_vm* floor = nullptr;
      Contestants contestants{{"floor",
                               [&] {
                                 return microseconds([&] {
                                   const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
                                   floor = floor_of(MiB(mib), file, kPage);  // behind the header
                                   ::close(file);
                                   floor_restore(floor, state);
                                   floor_run(floor);
                                 });
                               }},
                              {"vmm", [&] {
                                 return microseconds([&] {
                                   ours = restored(path, std::nullopt);
                                   run(*ours);
                                 });
                               }}};
      if (faults) {
        contestants.emplace_back("vmm, userfaultfd", [&] {
          return microseconds([&] {
            faulted = restored(path, FaultedMemory{});
            run(*faulted);
          });
        });
      }
      round_of(round, name.c_str(), contestants);
      floor_destroy(floor);
    }
    floor_destroy(original);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3 || argc > 4 || std::atoi(argv[1]) < 1) {
    std::fputs("usage: snapshot_bench ROUNDS FOLDER [ONLY]\n", stderr);
    return 2;
  }
  const int rounds = std::atoi(argv[1]);
  const std::string only = argc == 4 ? argv[3] : "";
  const auto wanted = [&only](const char* name) { return only.empty() || only == name; };
  if (wanted("create")) create_run_destroy(rounds);
  if (wanted("reset")) reset(rounds);
  if (wanted("clone")) clone(rounds);
  if (wanted("snapshot")) snapshot(rounds);
  if (wanted("restore")) {
    restore(rounds, argv[2]);
    restore_and_work(rounds, argv[2]);
  }
  return 0;
}
