#include "vmm/block/nbd_library.h"

#include <dlfcn.h>

namespace vmm::block {
namespace {

template <typename Function>
bool find(void* handle, const char* name, Function& function) {
  function = reinterpret_cast<Function>(::dlsym(handle, name));
  return function != nullptr;
}

bool find_all(void* handle, NbdLibrary& library) {
  return find(handle, "nbd_create", library.create) && find(handle, "nbd_close", library.close) &&
         find(handle, "nbd_get_error", library.get_error) &&
         find(handle, "nbd_get_errno", library.get_errno) &&
         find(handle, "nbd_set_uri_allow_local_file", library.set_uri_allow_local_file) &&
         find(handle, "nbd_aio_connect_uri", library.connect_uri) &&
         find(handle, "nbd_aio_is_ready", library.is_ready) &&
         find(handle, "nbd_aio_is_processing", library.is_processing) &&
         find(handle, "nbd_aio_is_connecting", library.is_connecting) &&
         find(handle, "nbd_aio_get_fd", library.get_fd) &&
         find(handle, "nbd_aio_get_direction", library.get_direction) &&
         find(handle, "nbd_aio_notify_read", library.notify_read) &&
         find(handle, "nbd_aio_notify_write", library.notify_write) &&
         find(handle, "nbd_get_size", library.get_size) &&
         find(handle, "nbd_get_block_size", library.get_block_size) &&
         find(handle, "nbd_is_read_only", library.is_read_only) &&
         find(handle, "nbd_can_flush", library.can_flush) &&
         find(handle, "nbd_can_trim", library.can_trim) &&
         find(handle, "nbd_can_zero", library.can_zero) &&
         find(handle, "nbd_aio_pread", library.pread) &&
         find(handle, "nbd_aio_pwrite", library.pwrite) &&
         find(handle, "nbd_aio_flush", library.flush) &&
         find(handle, "nbd_aio_trim", library.trim) && find(handle, "nbd_aio_zero", library.zero) &&
         find(handle, "nbd_aio_peek_command_completed", library.peek_completed) &&
         find(handle, "nbd_aio_command_completed", library.command_completed) &&
         find(handle, "nbd_aio_disconnect", library.disconnect);
}

}  // namespace

Result<std::shared_ptr<const NbdLibrary>> NbdLibrary::load() {
  constexpr const char* kName = "libnbd.so.0";  // the ABI that the header is for
  void* const handle = ::dlopen(kName, RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* const why = ::dlerror();
    return fail(ErrorCode::kUnsupported,
                "Disks at NBD servers need the library {} (Debian package libnbd0): {}", kName,
                why != nullptr ? why : "not found");
  }
  const std::shared_ptr<NbdLibrary> library(new NbdLibrary, [handle](NbdLibrary* functions) {
    delete functions;
    ::dlclose(handle);
  });
  if (!find_all(handle, *library)) {
    return fail(ErrorCode::kUnsupported, "{} is too old for disks at NBD servers: 1.4 is needed",
                kName);
  }
  return library;
}

}  // namespace vmm::block
