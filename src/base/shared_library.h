// A shared library that is loaded when something needs it: everybody else's start does not wait for
// it and what it needs.
#pragma once

#include <string>
#include <utility>

#include "base/result.h"

namespace vmm {

// Owns one loaded library; it is unloaded with the object. Move-only; thread-compatible.
class SharedLibrary {
 public:
  // `name` is the soname of the ABI that the caller was compiled for. Errors: kUnsupported, which
  // says what `purpose`
  // ("User-mode networking") needs and that `package` of Debian has it.
  static Result<SharedLibrary> open(const char* name, const char* purpose, const char* package);

  SharedLibrary(SharedLibrary&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  SharedLibrary& operator=(SharedLibrary&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~SharedLibrary();

  // Whether the library has that function, which is in `function` then.
  template <typename Function>
  bool find(const char* name, Function*& function) const {
    function = reinterpret_cast<Function*>(symbol(name));
    return function != nullptr;
  }

 private:
  explicit SharedLibrary(void* handle) noexcept : handle_(handle) {}
  void* symbol(const char* name) const;

  void* handle_;  // null when moved away
};

}  // namespace vmm
