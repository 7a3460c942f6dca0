// How a back-end is reached: through a socket that it listens on, or by starting it.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "base/result.h"
#include "base/unique_fd.h"
#include "vmm/vhost/child_process.h"

namespace vmm::vhost {

// Used by one thread at a time.
class PeerLink {
 public:
  virtual ~PeerLink() = default;
  // A connected socket. Does not wait for the peer.
  virtual Result<UniqueFd> connect() = 0;
  // The connection is of no more use: before it is closed.
  virtual void disconnect() {}
  // Whether one connection may serve several drivers, one after the other.
  virtual bool reusable() const noexcept { return true; }
  // Where it is, for people.
  virtual const std::string& place() const noexcept = 0;
};

// A back-end that listens on a Unix socket.
class SocketLink final : public PeerLink {
 public:
  explicit SocketLink(std::string path) : path_(std::move(path)) {}
  Result<UniqueFd> connect() override;
  const std::string& place() const noexcept override { return path_; }

 private:
  std::string path_;
};

// A virtiofsd of ours, another one for each driver, since what it knows of a driver's open files
// would be wrong for the next. It leads a session of its own, so that keys typed on our terminal do
// not reach it, and ends with us: it is killed, which loses nothing, since it keeps nothing back;
// and the kernel kills it with the thread that started it.
class FileServerLink final : public PeerLink {
 public:
  // Errors: kUnsupported when there is no virtiofsd; kBadConfig when `directory` is none.
  static Result<std::unique_ptr<FileServerLink>> create(std::string directory, bool read_only);
  // By the thread that the server is to live with.
  Result<UniqueFd> connect() override;
  void disconnect() override { child_.reset(); }
  bool reusable() const noexcept override { return false; }
  const std::string& place() const noexcept override { return directory_; }

 private:
  FileServerLink(std::string program, std::string directory, bool read_only)
      : program_(std::move(program)), directory_(std::move(directory)), read_only_(read_only) {}
  const std::string program_;
  const std::string directory_;
  const bool read_only_;
  std::optional<ChildProcess> child_;
};

}  // namespace vmm::vhost
