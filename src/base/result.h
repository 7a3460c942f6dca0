// Result<T>: a value or an Error. The only way a host failure travels through the library; no
// exceptions cross its API.
#pragma once

#include <fmt/core.h>

#include <string>
#include <tl/expected.hpp>
#include <utility>

#include "base/error.h"

namespace vmm {

template <typename T>
using Result = tl::expected<T, Error>;

// The failing half of a Result: `return fail(ErrorCode::kBadKernel, "{}: no ELF magic", name);`
template <typename... Args>
[[nodiscard]] tl::unexpected<Error> fail(ErrorCode code, fmt::format_string<Args...> format,
                                         Args&&... args) {
  return tl::unexpected<Error>(Error(code, fmt::format(format, std::forward<Args>(args)...)));
}

// The failing half of a Result from an errno value, which becomes the cause.
template <typename... Args>
[[nodiscard]] tl::unexpected<Error> fail_errno(int errnum, fmt::format_string<Args...> format,
                                               Args&&... args) {
  return tl::unexpected<Error>(
      Error::from_errno(errnum, fmt::format(format, std::forward<Args>(args)...)));
}

// Adds one layer of context to a failed Result; a good one passes through untouched.
template <typename T>
[[nodiscard]] Result<T> with_context(Result<T>&& result, std::string what) {
  if (result) return std::move(result);
  return tl::unexpected<Error>(std::move(result).error().wrap(std::move(what)));
}

namespace detail {
template <typename T>
T take(Result<T>&& result) {
  return *std::move(result);
}
inline void take(Result<void>&&) {}
}  // namespace detail

}  // namespace vmm

// The value of a Result expression, or a return of its error from the enclosing function.
#define VMM_TRY(expression)                                                                        \
  __extension__({                                                                                  \
    auto vmm_try_result = (expression);                                                            \
    if (!vmm_try_result) return ::tl::unexpected<::vmm::Error>(std::move(vmm_try_result).error()); \
    ::vmm::detail::take(std::move(vmm_try_result));                                                \
  })
