// One conversation with an NBD server, from the first packet to the last.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "vmm/block/nbd_library.h"

namespace vmm::block {

// What a server offers.
struct NbdExport {
  std::uint64_t size = 0;             // bytes
  std::uint32_t minimum = 1;          // what offsets and lengths are multiples of
  std::uint32_t preferred = 512;      // what is best addressed at once
  std::uint64_t maximum = 32U << 20;  // bytes of one transfer
  bool read_only = false;
  bool flush = false;
  bool trim = false;
  bool zero = false;
};

// For one thread; no call waits, but for connect(), which may look up a host's name. What a command
// transfers stays the library's until the command has ended or the connection is destroyed.
class NbdConnection {
 public:
  // Begins to connect. Errors: kBadConfig for what is no NBD URI, kIo.
  static Result<std::unique_ptr<NbdConnection>> connect(std::shared_ptr<const NbdLibrary> library,
                                                        const std::string& uri);
  NbdConnection(const NbdConnection&) = delete;
  NbdConnection& operator=(const NbdConnection&) = delete;
  ~NbdConnection();

  enum class State : std::uint8_t { kConnecting, kUp, kLost };
  State state() const;
  // Why it was lost.
  const std::string& problem() const noexcept { return problem_; }

  // What poll(2) is to wait for, and what to do when that has come.
  int fd() const;
  short events() const;
  void ready(short events);

  // Once it is up. Errors: kIo; kUnsupported for an export that is no disk for us.
  Result<NbdExport> offered() const;

  // Each returns the command's number, or a negative errno value.
  std::int64_t read(void* memory, std::uint64_t length, std::uint64_t offset);
  std::int64_t write(const void* memory, std::uint64_t length, std::uint64_t offset);
  std::int64_t zero(std::uint64_t length, std::uint64_t offset, bool may_unmap);
  std::int64_t trim(std::uint64_t length, std::uint64_t offset);
  std::int64_t flush();
  struct Ended {
    std::int64_t command = 0;  // 0: none has ended
    int error = 0;             // an errno value, or 0
  };
  Ended next_ended();
  // Tells the server that nothing follows; the connection ends by itself then.
  void say_goodbye();

 private:
  NbdConnection(std::shared_ptr<const NbdLibrary> library, nbd_handle* handle)
      : library_(std::move(library)), handle_(handle) {}
  std::int64_t number(std::int64_t result) const;

  const std::shared_ptr<const NbdLibrary> library_;
  nbd_handle* const handle_;
  std::string problem_;
};

}  // namespace vmm::block
