// What went wrong on the host's side: a code that a program can act on and a sentence that a person
// can.
//
// An Error never describes what a guest did: guest misbehaviour has a device-defined answer and a
// counter, and ends at worst in a StopReason (see docs/errors.md).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace vmm {

// Few and actionable. The command line maps each to an exit status in one table (cli/exit_code.h).
enum class ErrorCode : std::uint8_t {
  kBadConfig,    // what the user asked for contradicts itself or the host
  kBadKernel,    // a kernel image, initrd or other boot file cannot be used
  kBadState,     // a saved state was refused
  kNoKvm,        // /dev/kvm is missing, not permitted, or too old
  kUnsupported,  // this host lacks something that was asked for
  kOutOfRange,   // an address or size outside of what exists (guest memory, a window)
  kResource,     // the host ran out of memory, descriptors or space
  kIo,           // a file, socket or ioctl failed
  kTimeout,      // a deadline passed
  kCancelled,    // another thread asked for an end
};

// The code's name as written above, without the k ("BadKernel").
std::string_view to_string(ErrorCode code) noexcept;

// Value type, cheap to copy: causes are immutable and shared. Thread-compatible.
class Error {
 public:
  // `what` names the operation and the object ("map guest memory slot 3 at GPA 0x100000, 512 MiB"),
  // in sentence case, without a full stop.
  Error(ErrorCode code, std::string what) : code_(code), what_(std::move(what)) {}

  // An error whose cause is the errno value `errnum`; the code is chosen by errnum unless given.
  static Error from_errno(int errnum, std::string what);
  static Error from_errno(int errnum, ErrorCode code, std::string what);

  // The same failure seen from one layer up: `what` says what that layer was doing; the code is
  // kept.
  Error wrap(std::string what) &&;

  ErrorCode code() const noexcept { return code_; }
  const std::string& what() const noexcept { return what_; }
  const Error* cause() const noexcept { return cause_.get(); }

  // The whole chain, outermost first, joined by ": ". For printing, once, where the error ends.
  std::string message() const;

 private:
  ErrorCode code_;
  std::string what_;
  std::shared_ptr<const Error> cause_;
};

}  // namespace vmm
