#include "vmm/block/nbd_library.h"

#include <utility>

namespace vmm::block {
namespace {

bool find_all(NbdLibrary& found) {
  const SharedLibrary& library = found.library;
  return library.find("nbd_create", found.create) && library.find("nbd_close", found.close) &&
         library.find("nbd_get_error", found.get_error) &&
         library.find("nbd_get_errno", found.get_errno) &&
         library.find("nbd_set_uri_allow_local_file", found.set_uri_allow_local_file) &&
         library.find("nbd_aio_connect_uri", found.connect_uri) &&
         library.find("nbd_aio_is_ready", found.is_ready) &&
         library.find("nbd_aio_is_processing", found.is_processing) &&
         library.find("nbd_aio_is_connecting", found.is_connecting) &&
         library.find("nbd_aio_get_fd", found.get_fd) &&
         library.find("nbd_aio_get_direction", found.get_direction) &&
         library.find("nbd_aio_notify_read", found.notify_read) &&
         library.find("nbd_aio_notify_write", found.notify_write) &&
         library.find("nbd_get_size", found.get_size) &&
         library.find("nbd_get_block_size", found.get_block_size) &&
         library.find("nbd_is_read_only", found.is_read_only) &&
         library.find("nbd_can_flush", found.can_flush) &&
         library.find("nbd_can_trim", found.can_trim) &&
         library.find("nbd_can_zero", found.can_zero) &&
         library.find("nbd_aio_pread", found.pread) &&
         library.find("nbd_aio_pwrite", found.pwrite) &&
         library.find("nbd_aio_flush", found.flush) && library.find("nbd_aio_trim", found.trim) &&
         library.find("nbd_aio_zero", found.zero) &&
         library.find("nbd_aio_peek_command_completed", found.peek_completed) &&
         library.find("nbd_aio_command_completed", found.command_completed) &&
         library.find("nbd_aio_disconnect", found.disconnect);
}

}  // namespace

Result<std::shared_ptr<const NbdLibrary>> NbdLibrary::load() {
  // The ABI that the header is for.
  const auto found = std::make_shared<NbdLibrary>(
      VMM_TRY(SharedLibrary::open("libnbd.so.0", "A disk at an NBD server", "libnbd0")));
  if (!find_all(*found)) {
    return fail(ErrorCode::kUnsupported,
                "libnbd.so.0 is too old for disks at NBD servers: 1.4 is needed");
  }
  return found;
}

}  // namespace vmm::block
