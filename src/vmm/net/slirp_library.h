// libslirp, loaded when a guest is to have user-mode networking: everybody else's start does not
// wait for it and what it needs.
#pragma once

#include <slirp/libslirp.h>

#include <memory>
#include <utility>

#include "base/result.h"
#include "base/shared_library.h"

namespace vmm {

// The functions that we use. Shared by whoever holds it; unloaded with the last one.
struct SlirpLibrary {
  // Errors: kUnsupported, naming the package that has it.
  static Result<std::shared_ptr<const SlirpLibrary>> load();

  explicit SlirpLibrary(SharedLibrary loaded) : library(std::move(loaded)) {}

  SharedLibrary library;
  decltype(&::slirp_new) create = nullptr;
  decltype(&::slirp_cleanup) cleanup = nullptr;
  decltype(&::slirp_input) input = nullptr;
  decltype(&::slirp_pollfds_fill) pollfds_fill = nullptr;
  decltype(&::slirp_pollfds_poll) pollfds_poll = nullptr;
  decltype(&::slirp_add_hostfwd) add_hostfwd = nullptr;
};

}  // namespace vmm
