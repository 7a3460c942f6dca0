// Tests of a driver against a disk that fails: errors, late answers, writes that are done in part,
// and the power going at any moment. What the driver has said to be stored must be there after a
// restart. The same driver is tested with each of three mistakes as well, which have to be found.
//
//   examples/test_a_driver
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/event_fd.h"
#include "devices/block_backend.h"
#include "vmm/block/faulty_disk.h"
#include "vmm/vm.h"
#include "vmm_testing/guest_code.h"

namespace {

// Stores a number that grows. Record N is 4 KiB of the number N, and takes turns between two places
// on the disk, so that the one before is still there while it is written. At its start, and each
// time that a number is stored, the guest writes to port 0x80 with the number in R12. Bits of the
// byte at 0x3000: which mistakes it makes.
VMM_GUEST_CODE(kDriver, R"(
    .set .Lignores_errors, 1
    .set .Lnever_flushes, 2
    .set .Lbelieves_all, 4
    .set .Lbuffer, 0x20000
    .set .Lheader, 0x13000
    .set .Lstatus, 0x13010
    movzbl 0x3000, %r15d

    # The device at the first virtio-mmio slot (VIRTIO 1.2, 3.1.1 and 4.2.2)
    mov $0xe8000000, %ebx
    movl $0, 0x70(%rbx)
    movl $1, 0x70(%rbx)
    movl $3, 0x70(%rbx)
    movl $0, 0x24(%rbx)
    movl $0x200, 0x20(%rbx)         # VIRTIO_BLK_F_FLUSH
    movl $1, 0x24(%rbx)
    movl $1, 0x20(%rbx)             # VIRTIO_F_VERSION_1
    movl $0xb, 0x70(%rbx)
    movl $0, 0x30(%rbx)
    movl $8, 0x38(%rbx)             # a queue of 8: descriptors, driver's and device's area
    movl $0x10000, 0x80(%rbx)
    movl $0x11000, 0x90(%rbx)
    movl $0x12000, 0xa0(%rbx)
    movl $1, 0x44(%rbx)
    movl $0xf, 0x70(%rbx)
    # One request at a time: descriptors for its header, the record, and the status
    movl $.Lheader, 0x10000
    movl $16, 0x10008
    movl $.Lbuffer, 0x10010
    movl $4096, 0x10018
    movl $.Lstatus, 0x10020
    movl $1, 0x10028
    movl $2, 0x1002c                # the device writes it

    # The larger of the numbers that are there
    xor %r12d, %r12d
    mov $1, %ebp
  .Ldriver_scan:
    mov $3, %r14d
  .Ldriver_read:
    xor %edi, %edi
    call .Ldriver_request
    jz .Ldriver_has_read
    dec %r14d
    jnz .Ldriver_read
    jmp .Ldriver_give_up
  .Ldriver_has_read:
    mov .Lbuffer, %rax
    test $.Lbelieves_all, %r15b
    jnz .Ldriver_whole
    mov $.Lbuffer, %edi
    mov $512, %ecx
    repe scasq
    jne .Ldriver_next
  .Ldriver_whole:
    cmp %r12, %rax
    cmova %rax, %r12
  .Ldriver_next:
    inc %ebp
    cmp $2, %ebp
    jbe .Ldriver_scan
    out %al, $0x80

  .Ldriver_store:
    inc %r12
    mov %r12, %rax
    mov $.Lbuffer, %edi
    mov $512, %ecx
    rep stosq
    mov %r12d, %ebp
    and $1, %ebp
    inc %ebp
    mov $3, %r14d
  .Ldriver_write:
    mov $1, %edi
    call .Ldriver_request
    jnz .Ldriver_failed
    test $.Lnever_flushes, %r15b
    jnz .Ldriver_stored
    mov $4, %edi
    call .Ldriver_request
    jnz .Ldriver_failed
  .Ldriver_stored:
    out %al, $0x80
    jmp .Ldriver_store
  .Ldriver_failed:                  # after a flush that failed, writing again is the only way
    dec %r14d
    jnz .Ldriver_write
  .Ldriver_give_up:
    out %al, $0xf4
    hlt

  .Ldriver_request:                 # EDI: what (5.2.6), EBP: which 4 KiB; ZF when it is done
    mov %edi, .Lheader
    mov %ebp, %eax
    shl $3, %eax
    mov %rax, .Lheader + 8          # its sector
    mov $0x20001, %eax              # flush: no record, the status follows
    cmp $4, %edi
    je .Ldriver_chain
    mov $0x20001, %ecx              # write: the device reads it
    test %edi, %edi
    jnz .Ldriver_record
    mov $0x20003, %ecx
  .Ldriver_record:
    mov %ecx, 0x1001c
    mov $0x10001, %eax
  .Ldriver_chain:
    mov %eax, 0x1000c
    movb $0xff, .Lstatus
    incw 0x11002
    mfence
    movl $0, 0x50(%rbx)
  .Ldriver_wait:
    pause
    mov 0x11002, %ax
    cmp %ax, 0x12002
    jne .Ldriver_wait
    test $.Lignores_errors, %r15b
    jnz .Ldriver_ignore
    cmpb $0, .Lstatus
    ret
  .Ldriver_ignore:
    cmp %al, %al
    ret
)");

constexpr std::uint64_t kRecord = 4096;
constexpr std::uint64_t kSector = vmm::BlockBackend::kSectorSize;
constexpr std::uint64_t kStores = 5;  // that a test waits for

// A disk with a volatile cache. Its power can be made to go with a chosen request; then each sector
// that was written and not flushed may have reached the medium or not.
class CachedDisk final : public vmm::BlockBackend {
 public:
  explicit CachedDisk(vmm::EventFd event) : event_(std::move(event)), medium_(3 * kRecord) {}

  // With the n-th write or flush from now on, counted from 1: the write is in the cache, the flush
  // has done nothing, and no request ends any more.
  void cut_power_at(std::uint64_t nth) { until_cut_ = nth; }
  bool is_dead() const noexcept { return dead_; }
  // What is on the medium when power comes back. No machine uses the disk.
  void power_up(std::uint32_t seed) {
    std::mt19937 random(seed);
    for (const auto& [offset, sector] : cache_) {
      if (random() % 2 == 0) std::memcpy(&medium_[offset], sector.data(), kSector);
    }
    cache_.clear();
    until_cut_.reset();
    dead_ = false;
  }
  // Whether record `number` is there, and nothing else in its place.
  bool has_whole(std::uint64_t number) const {
    const std::vector<std::uint64_t> record(kRecord / sizeof(number), number);
    std::vector<std::uint64_t> there(record.size());
    auto* const bytes = reinterpret_cast<std::byte*>(there.data());
    for (std::uint64_t at = 0; at < kRecord; at += kSector) {
      read_sector((1 + number % 2) * kRecord + at, bytes + at);
    }
    return there == record;
  }

  vmm::BlockLimits limits() const noexcept override { return {.size = medium_.size()}; }
  void submit(vmm::BlockRequest request) override { requests_.push_back(std::move(request)); }
  void commit() override {
    if (!requests_.empty()) event_.signal();
  }
  void poll() override {
    event_.take();
    work([this] { return !dead_; });
  }
  int event_fd() const noexcept override { return event_.fd(); }
  void drain() override {
    work([] { return true; });
  }
  vmm::Result<void> refresh_size() override { return {}; }

 private:
  template <typename MayAnswer>
  void work(MayAnswer may_answer) {
    while (!requests_.empty()) {
      if (!dead_) carry_out(requests_.front());
      if (!may_answer()) return;
      const vmm::BlockRequest request = std::move(requests_.front());
      requests_.pop_front();
      if (request.client != nullptr) request.client->block_done(request.tag, dead_ ? EIO : 0);
    }
  }

  void carry_out(const vmm::BlockRequest& request) {
    if (request.op != vmm::BlockOp::kRead && until_cut_ && --*until_cut_ == 0) dead_ = true;
    if (request.op == vmm::BlockOp::kFlush && !dead_) {
      for (const auto& [offset, sector] : cache_) {
        std::memcpy(&medium_[offset], sector.data(), kSector);
      }
      cache_.clear();
    }
    // The records are whole sectors in memory, too: this guest has no other buffers.
    std::uint64_t offset = request.offset;
    for (const iovec& buffer : request.buffers) {
      auto* bytes = static_cast<std::byte*>(buffer.iov_base);
      for (std::size_t left = buffer.iov_len; left >= kSector; left -= kSector) {
        if (request.op == vmm::BlockOp::kWrite) {
          std::memcpy(cache_[offset].data(), bytes, kSector);
        } else {
          read_sector(offset, bytes);
        }
        offset += kSector;
        bytes += kSector;
      }
    }
  }

  void read_sector(std::uint64_t offset, std::byte* bytes) const {
    const auto cached = cache_.find(offset);
    std::memcpy(bytes, cached != cache_.end() ? cached->second.data() : &medium_[offset], kSector);
  }

  const vmm::EventFd event_;
  std::vector<std::byte> medium_;
  std::map<std::uint64_t, std::array<std::byte, kSector>> cache_;
  std::deque<vmm::BlockRequest> requests_;
  std::optional<std::uint64_t> until_cut_;
  std::atomic<bool> dead_{false};  // asked by the thread that runs the guest
};

// What happens to a driver in a test.
struct Scenario {
  std::string name;
  std::vector<vmm::block::BlockFault> first = {};    // while it stores
  std::vector<vmm::block::BlockFault> restart = {};  // while it looks what is there
  bool may_give_up = false;                          // before it has stored enough
  bool power_cut = false;                            // after that
  std::optional<std::uint64_t> power_cut_at = {};    // with this write or flush
  std::uint32_t seed = 1;
};

struct Driver {
  const char* name;
  std::uint8_t mistakes;
};
constexpr std::array<Driver, 4> kDrivers{
    {{"careful", 0}, {"ignores errors", 1}, {"never flushes", 2}, {"believes all", 4}}};

// The value, or the end of the program with the reason.
template <typename T>
T good(vmm::Result<T> result) {
  if (result) return *std::move(result);
  fmt::print(stderr, "test_a_driver: {}\n", result.error().message());
  // Without KVM there is nothing to test: Meson's exit status for a test that skips itself.
  std::exit(result.error().code() == vmm::ErrorCode::kNoKvm ? 77 : 1);
}

// What a run of the driver has told: what it found at its start, and the last number that it has
// stored since. Nothing: it did not come so far.
struct Told {
  std::optional<std::uint64_t> found = {};
  std::uint64_t stored = 0;
};

Told run(const Driver& driver, const std::shared_ptr<CachedDisk>& disk,
         const std::vector<vmm::block::BlockFault>& faults, std::uint64_t stores) {
  vmm::VmConfig config;
  config.memory.size = vmm::MiB(2);
  config.irqchip = vmm::IrqchipMode::kNone;
  config.boot = vmm::FlatBoot{.image = kDriver.image(), .address = vmm::Gpa(0x1000)};
  config.virtio_transport = vmm::VirtioTransport::kMmio;
  config.virtio.push_back(
      vmm::VirtioDiskConfig{.backend = good(vmm::block::FaultyDisk::create(disk, faults))});
  const auto vm = good(vmm::Vm::create(std::move(config)));

  Told told;
  if (!vm->memory().write(vmm::Gpa(0x3000), driver.mistakes)) return told;
  for (std::uint64_t i = 0; i <= stores; ++i) {
    const auto end = good(vm->run_until({vmm::UntilExit{.kind = "pio", .address = 0x80},
                                         vmm::UntilTrue{[&] { return disk->is_dead(); }}},
                                        std::chrono::seconds(60)));
    if (end.met != 0) break;  // the driver has given up, or the power is gone
    const std::uint64_t number = good(vm->registers(vmm::VcpuId{0})).gpr[vmm::x86::kR12];
    if (!told.found) told.found = number;
    told.stored = number;
  }
  return told;
}

// Empty: what was promised is there.
std::string test(const Driver& driver, const Scenario& scenario) {
  const auto disk = std::make_shared<CachedDisk>(good(vmm::EventFd::create()));
  if (scenario.power_cut_at) disk->cut_power_at(*scenario.power_cut_at);
  const Told first = run(driver, disk, scenario.first, kStores);
  if (!first.found) return "no start";
  if (first.stored < kStores && !scenario.may_give_up && !disk->is_dead()) return "gave up";
  if (scenario.power_cut || scenario.power_cut_at) disk->power_up(scenario.seed);

  const Told second = run(driver, disk, scenario.restart, 0);
  if (!second.found) return "no restart";
  if (*second.found < first.stored) return "lost";
  if (*second.found != 0 && !disk->has_whole(*second.found)) return "torn";
  return {};
}

std::vector<Scenario> scenarios() {
  using vmm::BlockOp;
  using vmm::block::BlockFault;
  std::vector<Scenario> all{
      {.name = "nothing happens"},
      {.name = "1st read after a restart: EIO",
       .restart = {{.op = BlockOp::kRead, .nth = 1, .error = EIO}}},
      {.name = "2nd read after a restart: EIO",
       .restart = {{.op = BlockOp::kRead, .nth = 2, .error = EIO}}},
      {.name = "5th write: EIO", .first = {{.op = BlockOp::kWrite, .nth = 5, .error = EIO}}},
      {.name = "from the 3rd on no write is possible",
       .first = {{.op = BlockOp::kWrite, .nth = 3, .count = BlockFault::kForever, .error = ENOSPC}},
       .may_give_up = true},
      {.name = "5th write: one sector, then EIO",
       .first = {{.op = BlockOp::kWrite, .nth = 5, .error = EIO, .transferred = kSector}}},
      {.name = "5th flush: EIO, and a power cut",
       .first = {{.op = BlockOp::kFlush, .nth = 5, .error = EIO}},
       .power_cut = true},
      {.name = "each write is 20 ms late",
       .first = {{.op = BlockOp::kWrite,
                  .count = BlockFault::kForever,
                  .delay = std::chrono::milliseconds(20)}}},
      {.name = "power cut after the 5th number", .power_cut = true},
  };
  for (std::uint32_t nth = 1; nth <= 2 * kStores; ++nth) {
    all.push_back({.name = fmt::format("power cut with write or flush {}", nth),
                   .power_cut_at = nth,
                   .seed = nth});
  }
  return all;
}

}  // namespace

int main() {
  fmt::print("{:38}", "");
  for (const Driver& driver : kDrivers) fmt::print("{:16}", driver.name);
  fmt::print("\n");
  std::array<std::size_t, kDrivers.size()> found{};
  for (const Scenario& scenario : scenarios()) {
    fmt::print("{:38}", scenario.name);
    for (std::size_t i = 0; i < kDrivers.size(); ++i) {
      const std::string problem = test(kDrivers[i], scenario);
      found[i] += problem.empty() ? 0U : 1U;
      fmt::print("{:16}", problem.empty() ? "ok" : problem);
      std::fflush(stdout);
    }
    fmt::print("\n");
  }
  // No test fails for the driver as it should be, and some do for each mistake.
  const bool right = found[0] == 0 && std::none_of(found.begin() + 1, found.end(),
                                                   [](std::size_t count) { return count == 0; });
  if (!right) fmt::print("NOT SO: each mistake was to be found, and nothing else\n");
  return right ? 0 : 1;
}
