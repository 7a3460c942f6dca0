#include "vmm/guest_ram.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "base/checked.h"
#include "base/size.h"
#include "base/start_thread.h"
#include "vmm/pmem_file.h"
#include "vmm/x86/layout.h"

namespace vmm {
namespace {

// Large enough that the ioctl does not matter, small enough for a progress bar.
constexpr std::uint64_t kPopulateChunk = MiB(32);
constexpr unsigned kMostPopulators = 16;

std::uint64_t host_memory() {
  const long pages = ::sysconf(_SC_PHYS_PAGES);
  const long page = ::sysconf(_SC_PAGESIZE);
  return pages > 0 && page > 0
             ? static_cast<std::uint64_t>(pages) * static_cast<std::uint64_t>(page)
             : 0;
}

struct Chunk {
  const GuestRegion* region;
  std::uint64_t offset;
  std::uint64_t size;
};

std::vector<Chunk> chunks_of(const GuestMemory& memory) {
  std::vector<Chunk> chunks;
  for (const GuestRegion& region : memory.regions()) {
    if (region.kind() != RegionKind::kRam) continue;
    for (std::uint64_t at = 0; at < region.range().size(); at += kPopulateChunk) {
      chunks.push_back({&region, at, std::min(kPopulateChunk, region.range().size() - at)});
    }
  }
  return chunks;
}

const VirtioMemConfig* memory_device(const VmConfig& config) {
  for (const VirtioConfig& device : config.virtio) {
    if (const auto* const found = std::get_if<VirtioMemConfig>(&device)) return found;
  }
  return nullptr;
}

// Hands out the address space above RAM, from its bottom.
class HighSpace {
 public:
  explicit HighSpace(const std::vector<GpaRange>& ram) {
    for (const GpaRange& range : ram) next_ = std::max(next_, range.end());
  }
  Result<GpaRange> take(std::uint64_t size, std::uint64_t alignment) {
    const auto base = checked_align_up(next_.value, alignment);
    const auto range = base ? GpaRange::create(Gpa(*base), size) : std::nullopt;
    if (!range || range->end() > x86::kEndOfMemory) {
      return fail(ErrorCode::kBadConfig, "{} more of memory are beyond what a guest can address",
                  format_size(size));
    }
    next_ = range->end();
    return *range;
  }

 private:
  Gpa next_ = x86::kHighRamBase;
};

}  // namespace

Result<GuestMemory> map_guest_memory(const VmConfig& config) {
  const MemoryConfig& memory = config.memory;
  const VirtioMemConfig* const growing = memory_device(config);
  const std::uint64_t most = growing != nullptr ? growing->most : memory.size;
  // Memory is populated lazily and may be overcommitted, but what no page could ever back is a
  // mistake.
  const std::uint64_t host = host_memory();
  if (host != 0 && most > host) {
    return fail(ErrorCode::kResource, "The guest's {} of memory are more than this host's {}",
                format_size(most), format_size(host));
  }
  const GuestRegion::Options options{.backing = memory.backing,
                                     .transparent_huge_pages = memory.transparent_huge_pages};
  const std::vector<GpaRange> ram = x86::ram_ranges(memory.size);
  std::vector<GuestRegion> regions;
  for (const GpaRange& range : ram) {
    regions.push_back(VMM_TRY(GuestRegion::create(range, options)));
  }
  HighSpace space(ram);
  for (const VirtioConfig& device : config.virtio) {
    const auto* const pmem = std::get_if<VirtioPmemConfig>(&device);
    if (pmem == nullptr) continue;
    const auto& file = pmem->file->mapping();
    const GpaRange range = VMM_TRY(space.take(file->size(), x86::kMemorySection));
    regions.push_back(VMM_TRY(GuestRegion::of_file(range, file)));
  }
  if (growing != nullptr) {
    const std::uint64_t size = growing->most - memory.size;
    const std::uint64_t block = virtio_mem_block(size);
    const GpaRange range = VMM_TRY(space.take(size, std::max(block, x86::kMemoryBlock)));
    regions.push_back(VMM_TRY(GuestRegion::reserve(range, block, options)));
  }
  return GuestMemory::create(std::move(regions));
}

Result<void> preallocate_guest_ram(const MemoryConfig& config, const GuestMemory& memory) {
  if (!config.preallocate) return {};
  const std::vector<Chunk> chunks = chunks_of(memory);
  std::atomic<std::size_t> next{0};
  std::mutex mutex;  // guards the next three
  std::condition_variable changed;
  std::uint64_t done = 0;
  std::optional<Error> error;
  const auto work = [&] {
    for (std::size_t i = next++; i < chunks.size(); i = next++) {
      auto populated = chunks[i].region->populate(chunks[i].offset, chunks[i].size);
      std::lock_guard<std::mutex> lock(mutex);
      done += chunks[i].size;
      if (!populated && !error) {
        error = std::move(populated).error();
        next = chunks.size();
      }
      changed.notify_one();
    }
  };
  const unsigned helpers = std::clamp(std::thread::hardware_concurrency(), 1U, kMostPopulators);
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < helpers; ++i) {
    auto thread = start_thread("preallocation", work);
    if (!thread) break;  // fewer do it, too
    threads.push_back(*std::move(thread));
  }
  if (threads.empty()) work();
  {
    std::unique_lock<std::mutex> lock(mutex);
    for (std::uint64_t told = 0; told < memory.size() && !error; told = done) {
      changed.wait(lock, [&] { return done != told || error; });
      if (!config.on_progress) continue;
      const std::uint64_t now = done;
      lock.unlock();
      config.on_progress(now, memory.size());
      lock.lock();
    }
  }
  for (std::thread& thread : threads) thread.join();
  if (error) {
    return tl::unexpected<Error>(std::move(*error).wrap(
        fmt::format("Preallocate {} of guest memory", format_size(memory.size()))));
  }
  return {};
}

Result<void> set_ram_slots(const GuestMemory& memory, const kvm::VmFd& vm) {
  std::uint32_t number = 0;
  for (const GuestRegion& region : memory.regions()) {
    VMM_TRY(vm.set_slot({.number = number++,
                         .range = region.range(),
                         .hva = region.hva(),
                         .read_only = region.read_only()}));
  }
  return {};
}

}  // namespace vmm
