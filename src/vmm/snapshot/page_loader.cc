#include "vmm/snapshot/page_loader.h"

#include <poll.h>
#include <pthread.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <utility>

#include "base/signals_blocked.h"
#include "base/start_thread.h"

namespace vmm {
namespace {

constexpr std::uint64_t kPage = RamImage::kPage;
// Neighbours that the snapshot has not either are brought with a page of zeroes.
constexpr std::uint64_t kZeroes = 16;
// How often somebody who waits for the rest is asked whether it still is wanted.
constexpr std::chrono::milliseconds kAskCancelled{20};

}  // namespace

Result<GuestMemory> PageLoader::map(const Snapshot& snapshot) {
  std::vector<GuestRegion> regions;
  for (const GpaRange& range : snapshot.ram().regions()) {
    regions.push_back(VMM_TRY(GuestRegion::create(range, {})));
  }
  return GuestMemory::create(std::move(regions));
}

Result<std::unique_ptr<PageLoader>> PageLoader::create(const GuestMemory& memory,
                                                       std::shared_ptr<const Snapshot> snapshot,
                                                       std::shared_ptr<const PageList> prefetch,
                                                       OnFailure on_failure) {
  if (prefetch) VMM_TRY(prefetch->check_fits(*snapshot));
  PageFaults faults = VMM_TRY(PageFaults::open());
  EventFd wake = VMM_TRY(EventFd::create());
  std::unique_ptr<PageLoader> loader(new PageLoader(std::move(faults), std::move(wake),
                                                    std::move(snapshot), std::move(prefetch),
                                                    std::move(on_failure)));
  std::uint64_t first = 0;
  for (const GuestRegion& region : memory.regions()) {
    const std::uint64_t size = region.range().size();
    VMM_TRY(loader->faults_->watch({region.hva(), static_cast<std::size_t>(size)}));
    loader->parts_.push_back({.hva = region.hva(), .first = first, .pages = size / kPage});
    first += size / kPage;
  }
  const SignalsBlocked for_the_new_thread;
  loader->thread_ = VMM_TRY(start_thread("the page loader", [self = loader.get()] {
    pthread_setname_np(pthread_self(), "pages");
    self->serve();
  }));
  return loader;
}

PageLoader::PageLoader(PageFaults faults, EventFd wake, std::shared_ptr<const Snapshot> snapshot,
                       std::shared_ptr<const PageList> prefetch, OnFailure on_failure)
    : faults_(std::move(faults)),
      wake_(std::move(wake)),
      snapshot_(std::move(snapshot)),
      prefetch_(std::move(prefetch)),
      on_failure_(std::move(on_failure)),
      loaded_(snapshot_->ram().pages().pages()),
      noted_(loaded_.pages()),
      buffer_(static_cast<std::size_t>(RamImage::kMostPages * kPage)) {
  if (!prefetch_) return;
  for (const std::uint64_t page : prefetch_->pages()) note_used(page);
}

PageLoader::~PageLoader() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ended_ = true;
  }
  wake_.signal();
  if (thread_.joinable()) thread_.join();
}

Result<void> PageLoader::load_rest(const std::function<bool()>& cancelled) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (state_ == State::kServing) {
    state_ = State::kLoadingRest;
    wake_.signal();
  }
  while (state_ == State::kLoadingRest) {
    if (!cancelled) {
      changed_.wait(lock);
      continue;
    }
    changed_.wait_for(lock, kAskCancelled);
    lock.unlock();  // it is the caller's
    if (cancelled()) return fail(ErrorCode::kCancelled, "Somebody asked for an end");
    lock.lock();
  }
  if (error_) return tl::unexpected<Error>(*error_);
  return {};
}

std::optional<Error> PageLoader::error() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return error_;
}

std::vector<std::uint64_t> PageLoader::used() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return used_;
}

PageLoader::State PageLoader::state() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return state_;
}

void PageLoader::note_used(std::uint64_t number) {
  if (noted_.has(number)) return;
  noted_.add(number);
  const std::lock_guard<std::mutex> lock(mutex_);
  if (state_ == State::kServing && used_.size() < PageList::kMost) used_.push_back(number);
}

// Those who wait come before what nobody waits for.
void PageLoader::serve() {
  bool ahead = true;  // there is something left to do that nobody waits for
  for (;;) {
    std::array<pollfd, 2> wait{{{faults_->fd(), POLLIN, 0}, {wake_.fd(), POLLIN, 0}}};
    if (::poll(wait.data(), wait.size(), ahead ? 0 : -1) < 0 && errno != EINTR) {
      return failed(Error::from_errno(errno, "Wait for who touches guest memory"));
    }
    if (wake_.take() != 0) ahead = true;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (ended_) return;
    }
    auto served = serve_waiting();
    if (!served) return failed(std::move(served).error());
    if (*served || !ahead) continue;
    const bool rest = state() == State::kLoadingRest;
    auto loaded = load_ahead(rest);
    if (!loaded) return failed(std::move(loaded).error());
    ahead = *loaded;
    if (rest && !ahead) return end(State::kWhole);
  }
}

Result<bool> PageLoader::serve_waiting() {
  bool any = false;
  while (const auto page = VMM_TRY(faults_->next())) {
    any = true;
    VMM_TRY(serve_fault(*page));
  }
  return any;
}

Result<void> PageLoader::serve_fault(std::byte* page) {
  const auto part = std::find_if(parts_.begin(), parts_.end(), [&](const Part& p) {
    return page >= p.hva && page < p.hva + p.pages * kPage;
  });
  if (part == parts_.end()) return {};  // nothing that is watched
  const auto index = static_cast<std::uint64_t>(page - part->hva) / kPage;
  const PageSet& stored = snapshot_->ram().pages();
  const std::uint64_t number = part->first + index;
  if (stored.has(number)) {
    if (loaded_.has(number)) return faults_->bring_zeroes(page, kPage);
    note_used(number);
    return load(number);
  }
  std::uint64_t pages = 1;
  while (pages < kZeroes && index + pages < part->pages && !stored.has(number + pages)) ++pages;
  return faults_->bring_zeroes(page, pages * kPage);
}

Result<bool> PageLoader::load_ahead(bool rest) {
  const PageSet& stored = snapshot_->ram().pages();
  const auto missing = [&](std::uint64_t page) { return stored.has(page) && !loaded_.has(page); };
  if (rest) {
    while (rest_ < stored.pages() && !missing(rest_)) ++rest_;
    if (rest_ == stored.pages()) return false;
    VMM_TRY(load(rest_));
    return true;
  }
  while (prefetch_ && prefetched_ < prefetch_->pages().size()) {
    const std::uint64_t page = prefetch_->pages()[prefetched_++];
    if (!missing(page)) continue;
    VMM_TRY(load(page));
    return true;
  }
  return false;
}

// All of the piece that has the page.
Result<void> PageLoader::load(std::uint64_t number) {
  const RamImage& ram = snapshot_->ram();
  const RamImage::Piece piece = ram.piece_of(number);
  VMM_TRY(ram.read(piece, buffer_));
  Result<void> brought;
  ram.for_each_run_of(piece, [&](const PageRun& run) {
    if (brought)
      brought = bring_run(run, buffer_.data() + (run.first - piece.extent.first) * kPage);
  });
  return brought;
}

// A run may reach from one region into the next.
Result<void> PageLoader::bring_run(const PageRun& run, const std::byte* bytes) {
  for (const Part& part : parts_) {
    const std::uint64_t first = std::max(run.first, part.first);
    const std::uint64_t end = std::min(run.end(), part.first + part.pages);
    if (first >= end) continue;
    for (std::uint64_t page = first; page < end; ++page) loaded_.add(page);
    VMM_TRY(faults_->bring(
        part.hva + (first - part.first) * kPage,
        {bytes + (first - run.first) * kPage, static_cast<std::size_t>((end - first) * kPage)}));
  }
  return {};
}

// From here on memory is what it would be without this.
void PageLoader::end(State state) {
  faults_.reset();
  const std::lock_guard<std::mutex> lock(mutex_);
  state_ = state;
  changed_.notify_all();
}

void PageLoader::failed(Error error) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    error_ = error;
  }
  on_failure_(error);
  end(State::kFailed);
}

}  // namespace vmm
