// Brings the memory of a machine that goes on from a snapshot, each page when it is touched, by a
// thread of this process (userfaultfd(2)).
//
// What has one checksum in the file is read and compared as a whole, and brought at once. What the
// snapshot has not is zeroes. A page that is missing again was given back to the host meanwhile
// (discard()), and is zeroes, too.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "base/event_fd.h"
#include "base/result.h"
#include "memory/guest_memory.h"
#include "memory/page_faults.h"
#include "vmm/snapshot/page_list.h"
#include "vmm/snapshot/page_set.h"
#include "vmm/snapshot/ram_image.h"
#include "vmm/snapshot/snapshot.h"

namespace vmm {

// Any thread. Whoever touches memory while a page cannot be brought, for whatever reason, goes on
// with zeroes: nobody waits for ever.
class PageLoader {
 public:
  using OnFailure = std::function<void(const Error&)>;

  // Private anonymous memory for the snapshot's regions.
  static Result<GuestMemory> map(const Snapshot& snapshot);
  // `memory`, as from map() and not touched yet, outlives this. `prefetch`, if any, is of the
  // snapshot (PageList::check_fits()). `on_failure` is called once, by the loader's thread, before
  // anybody sees a page that could not be brought. Errors: as of PageFaults; kBadState.
  static Result<std::unique_ptr<PageLoader>> create(const GuestMemory& memory,
                                                    std::shared_ptr<const Snapshot> snapshot,
                                                    std::shared_ptr<const PageList> prefetch,
                                                    OnFailure on_failure);
  // What is not there by then stays zeroes.
  ~PageLoader();
  PageLoader(const PageLoader&) = delete;
  PageLoader& operator=(const PageLoader&) = delete;

  // Brings all that is still missing; afterwards memory is ordinary memory. For whoever looks at it
  // as a whole, or copies the address space. `cancelled` is asked now and then. Errors: why a page
  // could not be brought, now or before; kCancelled.
  Result<void> load_rest(const std::function<bool()>& cancelled = {});
  // Why a page could not be brought; nothing when all could so far.
  std::optional<Error> error() const;
  // The snapshot's pages that were touched before somebody asked for the rest, in that order, after
  // those of the list that was given.
  std::vector<std::uint64_t> used() const;

 private:
  struct Part {  // a region
    std::byte* hva;
    std::uint64_t first;  // its first page's number
    std::uint64_t pages;
  };
  enum class State { kServing, kLoadingRest, kWhole, kFailed };

  PageLoader(PageFaults faults, EventFd wake, std::shared_ptr<const Snapshot> snapshot,
             std::shared_ptr<const PageList> prefetch, OnFailure on_failure);
  // What the thread does.
  void serve();
  Result<bool> serve_waiting();
  Result<void> serve_fault(std::byte* page);
  // One piece of what nobody waits for; false: there is none.
  Result<bool> load_ahead(bool rest);
  Result<void> load(std::uint64_t number);
  Result<void> bring_run(const PageRun& run, const std::byte* bytes);
  void note_used(std::uint64_t number);
  void end(State state);
  void failed(Error error);
  State state() const;

  // The thread's own.
  std::optional<PageFaults> faults_;
  EventFd wake_;
  const std::shared_ptr<const Snapshot> snapshot_;
  const std::shared_ptr<const PageList> prefetch_;
  const OnFailure on_failure_;
  std::vector<Part> parts_;
  PageSet loaded_;  // pages that were brought, whether they are still there or not
  PageSet noted_;   // what used_ has
  std::size_t prefetched_ = 0;
  std::uint64_t rest_ = 0;  // before this page all are loaded
  std::vector<std::byte> buffer_;

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  State state_ = State::kServing;
  bool ended_ = false;
  std::optional<Error> error_;
  std::vector<std::uint64_t> used_;

  std::thread thread_;
};

}  // namespace vmm
