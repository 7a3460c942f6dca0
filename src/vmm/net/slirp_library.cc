#include "vmm/net/slirp_library.h"

#include <dlfcn.h>

namespace vmm {
namespace {

template <typename Function>
bool find(void* handle, const char* name, Function& function) {
  function = reinterpret_cast<Function>(::dlsym(handle, name));
  return function != nullptr;
}

}  // namespace

Result<std::shared_ptr<const SlirpLibrary>> SlirpLibrary::load() {
  constexpr const char* kName = "libslirp.so.0";  // the ABI that the header is for
  void* const handle = ::dlopen(kName, RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* const why = ::dlerror();
    return fail(ErrorCode::kUnsupported,
                "User-mode networking needs the library {} (Debian package libslirp0): {}", kName,
                why != nullptr ? why : "not found");
  }
  const std::shared_ptr<SlirpLibrary> library(new SlirpLibrary, [handle](SlirpLibrary* functions) {
    delete functions;
    ::dlclose(handle);
  });
  if (!find(handle, "slirp_new", library->create) ||
      !find(handle, "slirp_cleanup", library->cleanup) ||
      !find(handle, "slirp_input", library->input) ||
      !find(handle, "slirp_pollfds_fill", library->pollfds_fill) ||
      !find(handle, "slirp_pollfds_poll", library->pollfds_poll) ||
      !find(handle, "slirp_add_hostfwd", library->add_hostfwd)) {
    return fail(ErrorCode::kUnsupported, "{} is too old for user-mode networking: 4.0 is needed",
                kName);
  }
  return library;
}

}  // namespace vmm
