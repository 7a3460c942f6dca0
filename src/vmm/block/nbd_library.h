// libnbd, loaded when a disk is at an NBD server: everybody else's start does not wait for it and
// what it needs.
#pragma once

#include <libnbd.h>

#include <memory>
#include <utility>

#include "base/result.h"
#include "base/shared_library.h"

namespace vmm::block {

// The functions that we use. Shared by whoever holds it; unloaded with the last one.
struct NbdLibrary {
  // Errors: kUnsupported, naming the package that has it.
  static Result<std::shared_ptr<const NbdLibrary>> load();

  explicit NbdLibrary(SharedLibrary loaded) : library(std::move(loaded)) {}

  SharedLibrary library;
  decltype(&::nbd_create) create = nullptr;
  decltype(&::nbd_close) close = nullptr;
  decltype(&::nbd_get_error) get_error = nullptr;
  decltype(&::nbd_get_errno) get_errno = nullptr;
  decltype(&::nbd_set_uri_allow_local_file) set_uri_allow_local_file = nullptr;
  decltype(&::nbd_aio_connect_uri) connect_uri = nullptr;
  decltype(&::nbd_aio_is_ready) is_ready = nullptr;
  decltype(&::nbd_aio_is_processing) is_processing = nullptr;
  decltype(&::nbd_aio_is_connecting) is_connecting = nullptr;
  decltype(&::nbd_aio_get_fd) get_fd = nullptr;
  decltype(&::nbd_aio_get_direction) get_direction = nullptr;
  decltype(&::nbd_aio_notify_read) notify_read = nullptr;
  decltype(&::nbd_aio_notify_write) notify_write = nullptr;
  decltype(&::nbd_get_size) get_size = nullptr;
  decltype(&::nbd_get_block_size) get_block_size = nullptr;
  decltype(&::nbd_is_read_only) is_read_only = nullptr;
  decltype(&::nbd_can_flush) can_flush = nullptr;
  decltype(&::nbd_can_trim) can_trim = nullptr;
  decltype(&::nbd_can_zero) can_zero = nullptr;
  decltype(&::nbd_aio_pread) pread = nullptr;
  decltype(&::nbd_aio_pwrite) pwrite = nullptr;
  decltype(&::nbd_aio_flush) flush = nullptr;
  decltype(&::nbd_aio_trim) trim = nullptr;
  decltype(&::nbd_aio_zero) zero = nullptr;
  decltype(&::nbd_aio_peek_command_completed) peek_completed = nullptr;
  decltype(&::nbd_aio_command_completed) command_completed = nullptr;
  decltype(&::nbd_aio_disconnect) disconnect = nullptr;
};

}  // namespace vmm::block
