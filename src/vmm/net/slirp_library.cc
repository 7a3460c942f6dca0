#include "vmm/net/slirp_library.h"

#include <utility>

namespace vmm {

Result<std::shared_ptr<const SlirpLibrary>> SlirpLibrary::load() {
  // The ABI that the header is for.
  const auto found = std::make_shared<SlirpLibrary>(
      VMM_TRY(SharedLibrary::open("libslirp.so.0", "User-mode networking", "libslirp0")));
  const SharedLibrary& library = found->library;
  if (!library.find("slirp_new", found->create) || !library.find("slirp_cleanup", found->cleanup) ||
      !library.find("slirp_input", found->input) ||
      !library.find("slirp_pollfds_fill", found->pollfds_fill) ||
      !library.find("slirp_pollfds_poll", found->pollfds_poll) ||
      !library.find("slirp_add_hostfwd", found->add_hostfwd)) {
    return fail(ErrorCode::kUnsupported,
                "libslirp.so.0 is too old for user-mode networking: 4.0 is needed");
  }
  return found;
}

}  // namespace vmm
