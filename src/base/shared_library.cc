#include "base/shared_library.h"

#include <dlfcn.h>

namespace vmm {

Result<SharedLibrary> SharedLibrary::open(const char* name, const char* purpose,
                                          const char* package) {
  void* const handle = ::dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* const why = ::dlerror();
    return fail(ErrorCode::kUnsupported, "{} needs the library {} (Debian package {}): {}", purpose,
                name, package, why != nullptr ? why : "not found");
  }
  return SharedLibrary(handle);
}

SharedLibrary::~SharedLibrary() {
  if (handle_ != nullptr) ::dlclose(handle_);
}

void* SharedLibrary::symbol(const char* name) const { return ::dlsym(handle_, name); }

}  // namespace vmm
