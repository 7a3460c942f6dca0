#include "vmm/control/line_server.h"

#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <list>
#include <thread>
#include <utility>
#include <vector>

#include "base/event_fd.h"
#include "base/start_thread.h"
#include "base/unique_fd.h"
#include "vmm/unix_listener.h"

namespace vmm {
namespace {

constexpr int kBacklog = 16;
constexpr int kNextTry = 100;  // milliseconds

struct Client {
  UniqueFd socket;
  std::string input;   // what was read and not answered
  std::string output;  // answers that were not taken
  bool ended = false;  // it sends nothing more, or is not listened to any more

  bool gone() const noexcept { return !socket || (ended && output.empty()); }
};

class Server final : public LineServer {
 public:
  Server(UnixListener listener, EventFd wake, Answer answer, Options options)
      : options_(std::move(options)),
        answer_(std::move(answer)),
        listener_(std::move(listener)),
        wake_(std::move(wake)) {}
  ~Server() override {
    ending_ = true;
    wake_.signal();
    if (thread_.joinable()) thread_.join();
  }
  // Once. Errors: kResource.
  Result<void> start() {
    thread_ = VMM_TRY(start_thread("a control socket", [this] { thread_main(); }));
    return {};
  }

 private:
  void thread_main() {
    ::pthread_setname_np(::pthread_self(), options_.thread_name.c_str());
    while (!ending_) {
      std::vector<pollfd> waits = interests();
      if (::poll(waits.data(), waits.size(), -1) < 0) continue;  // EINTR
      auto at = waits.begin() + 2;
      for (Client& client : clients_) {
        const short events = (at++)->revents;
        if (events != 0 && !ending_) serve(client, events);
      }
      clients_.remove_if([](const Client& client) { return client.gone(); });
      if (waits[1].revents != 0) welcome();
    }
  }

  std::vector<pollfd> interests() const {
    const bool room = clients_.size() < options_.most_clients;
    std::vector<pollfd> waits{{wake_.fd(), POLLIN, 0}, {room ? listener_.fd() : -1, POLLIN, 0}};
    for (const Client& client : clients_) {
      int events = client.output.empty() ? 0 : POLLOUT;
      if (!client.ended && !is_behind(client)) events |= POLLIN;
      waits.push_back({client.socket.get(), static_cast<short>(events), 0});
    }
    return waits;
  }

  bool is_behind(const Client& client) const noexcept {
    return client.output.size() >= options_.most_waiting;
  }

  void welcome() {
    if (UniqueFd socket = listener_.accept()) {
      clients_.emplace_back().socket = std::move(socket);
      return;
    }
    // Out of descriptors, most likely: a client is still there to be accepted, but not at once.
    pollfd ending{wake_.fd(), POLLIN, 0};
    (void)::poll(&ending, 1, kNextTry);
  }

  void serve(Client& client, short events) {
    if ((events & POLLIN) != 0) {
      read(client);
    } else if ((events & (POLLERR | POLLHUP | POLLNVAL)) != 0) {
      client.socket.reset();
    }
    // What was answered makes room for more that is here already.
    do {
      answer_lines(client);
      write(client);
    } while (client.socket && has_line(client) && !is_behind(client) && !ending_);
  }

  // One piece a time: others have their turn.
  static void read(Client& client) {
    std::array<char, KiB(16)> piece;
    const ssize_t n = ::recv(client.socket.get(), piece.data(), piece.size(), MSG_DONTWAIT);
    if (n > 0) {
      client.input.append(piece.data(), static_cast<std::size_t>(n));
    } else if (n == 0 || (errno != EINTR && errno != EAGAIN)) {
      client.ended = true;
    }
  }

  static bool has_line(const Client& client) {
    return client.input.find('\n') != std::string::npos;
  }

  void answer_lines(Client& client) {
    std::size_t begin = 0;
    while (!is_behind(client) && !ending_) {
      const auto end = client.input.find('\n', begin);
      const std::size_t size = std::min(end, client.input.size()) - begin;
      if (size > options_.most_line) {
        client.output += options_.too_long + "\n";
        client.ended = true;
        begin = client.input.size();
        break;
      }
      if (end == std::string::npos) break;
      const std::string_view line = std::string_view(client.input).substr(begin, size);
      if (!line.empty()) client.output += answer_(line) + "\n";
      begin = end + 1;
    }
    client.input.erase(0, begin);
  }

  static void write(Client& client) {
    while (client.socket && !client.output.empty()) {
      const ssize_t n = ::send(client.socket.get(), client.output.data(), client.output.size(),
                               MSG_DONTWAIT | MSG_NOSIGNAL);
      if (n > 0) {
        client.output.erase(0, static_cast<std::size_t>(n));
      } else if (n < 0 && errno == EINTR) {
        continue;
      } else {
        if (errno != EAGAIN) client.socket.reset();
        return;
      }
    }
  }

  const Options options_;
  const Answer answer_;
  const UnixListener listener_;
  const EventFd wake_;
  std::atomic<bool> ending_{false};
  std::list<Client> clients_;  // used by the thread only
  std::thread thread_;
};

}  // namespace

Result<std::unique_ptr<LineServer>> LineServer::create(const std::string& path, Answer answer,
                                                       Options options) {
  UnixListener listener = VMM_TRY(UnixListener::create(path, kBacklog));
  EventFd wake = VMM_TRY(EventFd::create());
  auto server = std::make_unique<Server>(std::move(listener), std::move(wake), std::move(answer),
                                         std::move(options));
  VMM_TRY(server->start());
  return server;
}

}  // namespace vmm
