// The C API: snapshots, files of them, and machines that go on from one.
#include "vmm/c_api_handles.h"

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

using vmm::Result;
using namespace vmm::c;

vmm_snapshot* vmm_take_snapshot(vmm_vm* vm, vmm_error** error) {
  return guarded(error, [&]() -> vmm_snapshot* {
    auto taken = vm->vm->snapshot();
    return done(taken, error) ? new vmm_snapshot{*std::move(taken)} : nullptr;
  });
}

int vmm_reset_to(vmm_vm* vm, const vmm_snapshot* snapshot, vmm_error** error) {
  return guarded(error, [&]() -> int { return done(vm->vm->reset_to(snapshot->snapshot), error); });
}

int vmm_save(vmm_vm* vm, const char* path, vmm_error** error) {
  return guarded(error, [&]() -> int { return done(vm->vm->save(text_of(path)), error); });
}

int vmm_save_increment(vmm_vm* vm, const char* path, const char* base, vmm_error** error) {
  return guarded(error, [&]() -> int {
    return done(vm->vm->save_increment(text_of(path), text_of(base)), error);
  });
}

vmm_snapshot* vmm_open_snapshot(const char* path, vmm_error** error) {
  return guarded(error, [&]() -> vmm_snapshot* {
    auto opened = vmm::Snapshot::open(text_of(path));
    return done(opened, error) ? new vmm_snapshot{*std::move(opened)} : nullptr;
  });
}

void vmm_snapshot_free(vmm_snapshot* snapshot) { delete snapshot; }

vmm_vm* vmm_clone(vmm_vm* vm, vmm_error** error) {
  return guarded(error, [&]() -> vmm_vm* {
    auto made = std::make_unique<vmm_vm>();
    made->console = std::make_unique<vmm::CaptureSink>();
    made->hypercalls = vm->hypercalls;
    auto cloned = vm->vm->clone([&made](vmm::VmConfig& config) -> Result<void> {
      config.serial.output = made->console.get();
      config.hypercalls = made->hypercalls;
      return {};
    });
    if (!done(cloned, error)) return nullptr;
    made->vm = *std::move(cloned);
    return made.release();
  });
}

namespace {

// What a configuration keeps: functions are not in snapshots.
void boot(vmm_config* config, vmm::VmConfig made) {
  made.hypercalls = std::move(config->config.hypercalls);
  config->config = std::move(made);
}

}  // namespace

void vmm_config_boot_snapshot(vmm_config* config, const vmm_snapshot* snapshot) {
  change(config, [&] { boot(config, vmm::Snapshot::config(snapshot->snapshot)); });
}

int vmm_config_boot_snapshot_faulted(vmm_config* config, const vmm_snapshot* snapshot,
                                     const vmm_page_list* prefetch, vmm_error** error) {
  return guarded(error, [&]() -> int {
    vmm::FaultedMemory faulted;
    if (prefetch != nullptr) {
      const auto fits = prefetch->list->check_fits(*snapshot->snapshot);
      if (!fits) return done(fits, error);
      faulted.prefetch = prefetch->list;
    }
    vmm::VmConfig made = vmm::Snapshot::config(snapshot->snapshot);
    made.boot = vmm::SnapshotBoot{.snapshot = snapshot->snapshot, .faulted = std::move(faulted)};
    boot(config, std::move(made));
    return 1;
  });
}

// ---- lists of pages

vmm_page_list* vmm_used_pages(const vmm_vm* vm, vmm_error** error) {
  return guarded(error, [&]() -> vmm_page_list* {
    auto used = vm->vm->used_pages();
    if (!done(used, error)) return nullptr;
    return new vmm_page_list{std::make_shared<const vmm::PageList>(*std::move(used))};
  });
}

vmm_page_list* vmm_new_page_list(const vmm_snapshot* snapshot, const uint64_t* pages, size_t count,
                                 vmm_error** error) {
  return guarded(error, [&]() -> vmm_page_list* {
    const std::span numbers(pages, count);
    auto list = std::make_shared<const vmm::PageList>(
        *snapshot->snapshot, std::vector<std::uint64_t>(numbers.begin(), numbers.end()));
    if (!done(list->check_fits(*snapshot->snapshot), error)) return nullptr;
    return new vmm_page_list{std::move(list)};
  });
}

vmm_page_list* vmm_read_page_list(const char* path, vmm_error** error) {
  return guarded(error, [&]() -> vmm_page_list* {
    auto list = vmm::PageList::read(text_of(path));
    return done(list, error) ? new vmm_page_list{*std::move(list)} : nullptr;
  });
}

int vmm_write_page_list(const vmm_page_list* list, const char* path, vmm_error** error) {
  return guarded(error, [&]() -> int { return done(list->list->write(text_of(path)), error); });
}

const uint64_t* vmm_page_list_pages(const vmm_page_list* list) {
  const auto& pages = list->list->pages();
  return pages.empty() ? nullptr : pages.data();
}
size_t vmm_page_list_size(const vmm_page_list* list) { return list->list->pages().size(); }
void vmm_page_list_free(vmm_page_list* list) { delete list; }
