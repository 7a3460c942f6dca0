// ioctl(2) with errors that say which request failed on what.
#pragma once

#include <sys/ioctl.h>

#include <cerrno>

#include "base/result.h"

namespace vmm::kvm {

// The non-negative answer of an ioctl whose argument is a number.
inline Result<int> ioctl_value(int fd, unsigned long request, unsigned long argument,
                               const char* name, const char* object) {
  const int answer = ::ioctl(fd, request, argument);
  if (answer < 0) return fail_errno(errno, "{} on {}", name, object);
  return answer;
}

// An ioctl whose argument is a structure.
inline Result<void> ioctl_pointer(int fd, unsigned long request, const void* argument,
                                  const char* name, const char* object) {
  if (::ioctl(fd, request, argument) < 0) return fail_errno(errno, "{} on {}", name, object);
  return {};
}

}  // namespace vmm::kvm
