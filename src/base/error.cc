#include "base/error.h"

#include <cerrno>
#include <system_error>

namespace vmm {

std::string_view to_string(ErrorCode code) noexcept {
  switch (code) {
    case ErrorCode::kBadConfig:
      return "BadConfig";
    case ErrorCode::kBadKernel:
      return "BadKernel";
    case ErrorCode::kBadState:
      return "BadState";
    case ErrorCode::kNoKvm:
      return "NoKvm";
    case ErrorCode::kUnsupported:
      return "Unsupported";
    case ErrorCode::kOutOfRange:
      return "OutOfRange";
    case ErrorCode::kResource:
      return "Resource";
    case ErrorCode::kIo:
      return "Io";
    case ErrorCode::kTimeout:
      return "Timeout";
    case ErrorCode::kCancelled:
      return "Cancelled";
  }
  return "Unknown";
}

namespace {

ErrorCode code_for_errno(int errnum) {
  switch (errnum) {
    case ENOMEM:
    case EMFILE:
    case ENFILE:
    case ENOSPC:
      return ErrorCode::kResource;
    case ETIMEDOUT:
      return ErrorCode::kTimeout;
    case EOPNOTSUPP:
    case ENOSYS:
      return ErrorCode::kUnsupported;
    default:
      return ErrorCode::kIo;
  }
}

}  // namespace

Error Error::from_errno(int errnum, std::string what) {
  return from_errno(errnum, code_for_errno(errnum), std::move(what));
}

Error Error::from_errno(int errnum, ErrorCode code, std::string what) {
  Error error(code, std::move(what));
  error.cause_ = std::make_shared<const Error>(code_for_errno(errnum),
                                               std::generic_category().message(errnum));
  return error;
}

Error Error::wrap(std::string what) && {
  Error outer(code_, std::move(what));
  outer.cause_ = std::make_shared<const Error>(std::move(*this));
  return outer;
}

std::string Error::message() const {
  std::string text = what_;
  for (const Error* e = cause_.get(); e != nullptr; e = e->cause_.get()) {
    text += ": ";
    text += e->what_;
  }
  return text;
}

}  // namespace vmm
