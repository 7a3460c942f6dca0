// A capture file for Wireshark and tcpdump: the classic pcap format, with nanoseconds.
//
// Each frame is one write, so the file is well-formed whenever somebody looks, also after a crash.
#pragma once

#include <sys/uio.h>

#include <chrono>
#include <cstdint>
#include <span>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace vmm {

class PcapWriter {
 public:
  static constexpr std::uint32_t kSnapLength = 262144;  // as tcpdump's: more than any frame has

  // Creates the file (mode 0600: frames may hold secrets), or empties it. Errors: kIo; kBadConfig
  // when it is there and no plain file.
  static Result<PcapWriter> create(const std::string& path);

  // Appends one frame of `pieces` that was seen at `utc`, time since the Unix epoch. After an error
  // (the disk is full) nothing more is written; what is there stays well-formed.
  void write(std::chrono::nanoseconds utc, std::span<const ::iovec> pieces);

  bool failed() const noexcept { return !file_.valid(); }

 private:
  PcapWriter(UniqueFd file, std::uint64_t size) : file_(std::move(file)), size_(size) {}
  UniqueFd file_;
  std::uint64_t size_;  // up to which the file is well-formed
};

}  // namespace vmm
