#include "vmm/guest_ram.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "base/size.h"
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
    for (std::uint64_t at = 0; at < region.range().size(); at += kPopulateChunk) {
      chunks.push_back({&region, at, std::min(kPopulateChunk, region.range().size() - at)});
    }
  }
  return chunks;
}

}  // namespace

Result<GuestMemory> map_guest_ram(const MemoryConfig& config) {
  // Memory is populated lazily and may be overcommitted, but what no page could ever back is a
  // mistake.
  const std::uint64_t host = host_memory();
  if (host != 0 && config.size > host) {
    return fail(ErrorCode::kResource, "The guest's {} of memory are more than this host's {}",
                format_size(config.size), format_size(host));
  }
  std::vector<GuestRegion> regions;
  for (const GpaRange& range : x86::ram_ranges(config.size)) {
    regions.push_back(VMM_TRY(GuestRegion::create(
        range,
        {.backing = config.backing, .transparent_huge_pages = config.transparent_huge_pages})));
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
  for (unsigned i = 0; i < helpers; ++i) threads.emplace_back(work);
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
    VMM_TRY(vm.set_slot({.number = number++, .range = region.range(), .hva = region.hva()}));
  }
  return {};
}

}  // namespace vmm
