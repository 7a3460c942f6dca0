// What a debugger costs: a client of gdb's remote protocol that does one thing many times and says
// how long it took. The same for every stub; what a stub offers (qSupported, vCont?) is used as gdb
// would use it.
//
//   gdb_client SOCKET BEGIN END MEASUREMENT COUNT [KIND]
//
// SOCKET is a Unix socket's path. BEGIN and END are the addresses of a loop and of what follows it
// (guests/debug.S).
//   steps      COUNT instructions, each asked for and told
//   range      about COUNT instructions in the loop, until it is left; where the stub steps by
//   ranges condition  COUNT visits of a breakpoint whose condition is false; KIND: 0 in memory, 1
//   in a debug register memory     COUNT MiB of memory from 1 MiB on fill       COUNT MiB of it
//   written, none of them zero
// Prints the nanoseconds of one (of memory: of a MiB), then leaves the guest running. Status 3: the
// stub cannot do it.
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::uint64_t kMiB = 1 << 20;
// Numbers of registers in x86-64's description, the same in every stub (gdb's
// features/i386/64bit-core.xml).
constexpr unsigned kRcx = 2, kRip = 16;
constexpr unsigned kLoopSize = 4;  // instructions

struct NotOffered : std::runtime_error {
  using std::runtime_error::runtime_error;
};

std::string hex(std::uint64_t number) {
  char text[20];
  std::snprintf(text, sizeof text, "%llx", static_cast<unsigned long long>(number));
  return text;
}

int digit(char c) {
  return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

std::uint64_t little_endian(std::string_view digits) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i + 1 < digits.size() && i < 16; i += 2) {
    value |= static_cast<std::uint64_t>(digit(digits[i]) * 16 + digit(digits[i + 1])) << (4 * i);
  }
  return value;
}

std::string little_endian(std::uint64_t value) {
  std::string text;
  for (int i = 0; i < 8; ++i, value >>= 8) {
    text += "0123456789abcdef"[value >> 4 & 15];
    text += "0123456789abcdef"[value & 15];
  }
  return text;
}

// Escapes and run lengths of a packet (GDB manual, "Overview" of the remote protocol).
void unpack(std::string_view packed, std::string& bytes) {
  bytes.clear();
  const auto next_of = [packed](char c, std::size_t from) {
    const void* const found = std::memchr(packed.data() + from, c, packed.size() - from);
    return found == nullptr
               ? packed.size()
               : static_cast<std::size_t>(static_cast<const char*>(found) - packed.data());
  };
  std::size_t escape = next_of('}', 0), run = next_of('*', 0);
  for (std::size_t i = 0; i < packed.size();) {
    const std::size_t special = std::min(escape, run);
    bytes.append(packed, i, special - i);
    if (special + 1 >= packed.size()) return;
    const char next = packed[special + 1];
    i = special + 2;
    if (special == escape) {
      bytes += static_cast<char>(next ^ 0x20);
    } else if (!bytes.empty()) {
      bytes.append(static_cast<std::size_t>(static_cast<unsigned char>(next) - 29), bytes.back());
    }
    if (escape < i) escape = next_of('}', i);
    if (run < i) run = next_of('*', i);
  }
}

class Connection {
 public:
  explicit Connection(const std::string& path) : fd_(::socket(AF_UNIX, SOCK_STREAM, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::snprintf(address.sun_path, sizeof address.sun_path, "%s", path.c_str());
    if (fd_ < 0 || ::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
      throw std::runtime_error("cannot connect to " + path);
    }
  }
  ~Connection() { ::close(fd_); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Some stubs tell of the stop that the connection makes, before they are asked. Not timed.
  void skip_greeting() {
    pollfd ready{fd_, POLLIN, 0};
    while (::poll(&ready, 1, 200) > 0) (void)receive();
  }

  void send(std::string_view payload) {
    static constexpr std::string_view kDigits = "0123456789abcdef";
    unsigned sum = 0;
    for (const char c : payload) sum += static_cast<unsigned char>(c);
    out_ = "$";
    out_ += payload;
    out_ += '#';
    out_ += kDigits[sum >> 4 & 15];
    out_ += kDigits[sum & 15];
    write_all(out_);
  }

  // The next packet, as it came but for its frame; valid until the next call.
  std::string_view receive() {
    for (std::size_t looked = begin_;;) {
      const char* const in = in_.data();
      const auto* const end =
          static_cast<const char*>(std::memchr(in + looked, '#', end_ - looked));
      if (end != nullptr && static_cast<std::size_t>(end - in) + 3 <= end_) {
        const auto* const begin =
            static_cast<const char*>(std::memchr(in + begin_, '$', end_ - begin_));
        if (begin == nullptr || begin > end) throw std::runtime_error("the stub sends no packets");
        if (acknowledge_) write_all("+");
        begin_ = static_cast<std::size_t>(end - in) + 3;
        return {begin + 1, static_cast<std::size_t>(end - begin - 1)};
      }
      looked = end != nullptr ? static_cast<std::size_t>(end - in) : end_;
      looked -= make_room();
      read_more();
    }
  }

  std::string ask(std::string_view payload) {
    send(payload);
    std::string answer;
    unpack(receive(), answer);
    return answer;
  }

  void expect_ok(const std::string& payload) {
    const std::string answer = ask(payload);
    if (answer != "OK") throw std::runtime_error(payload + " was answered with " + answer);
  }

  void stop_acknowledging() {
    expect_ok("QStartNoAckMode");
    write_all("+");
    acknowledge_ = false;
  }

 private:
  void write_all(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
      if (n <= 0) throw std::runtime_error("the stub takes no more");
      bytes.remove_prefix(static_cast<std::size_t>(n));
    }
  }
  // By how much what is there was moved.
  std::size_t make_room() {
    const std::size_t by = begin_;
    std::memmove(in_.data(), in_.data() + begin_, end_ - begin_);
    begin_ = 0;
    end_ -= by;
    if (end_ == in_.size()) throw std::runtime_error("a packet is too long");
    return by;
  }
  void read_more() {
    const ssize_t n = ::read(fd_, in_.data() + end_, in_.size() - end_);
    if (n <= 0) throw std::runtime_error("the stub is gone");
    end_ += static_cast<std::size_t>(n);
  }

  const int fd_;
  bool acknowledge_ = true;
  std::string out_;
  std::vector<char> in_ = std::vector<char>(4 * kMiB);
  std::size_t begin_ = 0, end_ = 0;  // what is there, and was not handed out
};

class Client {
 public:
  Client(const std::string& socket, std::uint64_t begin, std::uint64_t end)
      : stub_(socket), begin_(begin), end_(end) {
    stub_.skip_greeting();
    features_ = stub_.ask("qSupported:swbreak+;hwbreak+;vContSupported+");
    if (offers("QStartNoAckMode+")) stub_.stop_acknowledging();
    // Some stubs show single registers to those alone who know their description.
    (void)stub_.ask("qXfer:features:read:target.xml:0,ffb");
    (void)stub_.ask("?");
    resume_ = stub_.ask("vCont?");
    const std::size_t at = features_.find("PacketSize=");
    if (at != std::string::npos) {
      packet_size_ = std::strtoull(features_.c_str() + at + 11, nullptr, 16);
    }
    // By gdb: 'g' finds out how large registers are. The first one is known by its thread's number.
    stub_.expect_ok("Hg1");
  }
  ~Client() {
    try {
      (void)stub_.ask("D");
    } catch (const std::exception&) {
    }
  }

  double steps(std::uint64_t count) {
    go_to_loop(kNever);
    const auto from = Clock::now();
    for (std::uint64_t i = 0; i < count; ++i) step();
    return each(from, count);
  }

  double range(std::uint64_t count) {
    if (resume_.find(";r") == std::string::npos) throw NotOffered("vCont;r");
    const std::uint64_t rounds = std::max<std::uint64_t>(count / kLoopSize, 1);
    go_to_loop(rounds);
    const auto from = Clock::now();
    stub_.send("vCont;r" + hex(begin_) + "," + hex(end_) + ":1");
    wait();
    const double ns = each(from, rounds * kLoopSize);
    if (register_value(kRip) != end_) throw std::runtime_error("the range was left elsewhere");
    return ns;
  }

  // $rcx == 0 at the loop's begin, which is never true.
  double condition(std::uint64_t count, const std::string& kind) {
    constexpr std::uint64_t kSpare = 8;
    const std::string place = kind + "," + hex(begin_) + ",1";
    const std::string last = kind + "," + hex(end_) + ",1";
    const bool judged_there = offers("ConditionalBreakpoints+");
    go_to_loop(count + kSpare);
    // reg 2; const8 0; equal; end (GDB manual, "Bytecode Descriptions").
    const std::string code =
        "260002"
        "2200"
        "13"
        "27";
    const std::string condition = ";X" + hex(code.size() / 2) + "," + code;
    stub_.expect_ok("Z" + place + (judged_there ? condition : ""));
    stub_.expect_ok("Z" + last);
    const auto from = Clock::now();
    if (judged_there) {
      stub_.send("vCont;c");
      wait();
    } else {
      judge_here("Z" + place, "z" + place);
    }
    const double ns = each(from, count + kSpare);
    if (register_value(kRip) != end_) throw std::runtime_error("the guest stopped elsewhere");
    stub_.expect_ok("z" + place);
    stub_.expect_ok("z" + last);
    return ns;
  }

  double memory(std::uint64_t mib) {
    const bool binary = offers("binary-upload+");
    // As gdb does: an answer may need two characters for a byte, escaped or hexadecimal.
    const std::uint64_t piece = packet_size_ / 2;
    std::string bytes;
    const auto from = Clock::now();
    for (std::uint64_t at = kMiB; at < kMiB + mib * kMiB;) {
      const std::uint64_t size = std::min(piece, kMiB + mib * kMiB - at);
      stub_.send((binary ? "x" : "m") + hex(at) + "," + hex(size));
      unpack(stub_.receive(), bytes);
      if (binary) {
        if (bytes.size() < 2 || bytes[0] != 'b')
          throw std::runtime_error("x was answered with " + bytes);
        at += bytes.size() - 1;
      } else {
        if (bytes.size() < 2 || bytes[0] == 'E')
          throw std::runtime_error("m was answered with " + bytes);
        for (std::size_t i = 0; i + 1 < bytes.size(); i += 2) {
          bytes[i / 2] = static_cast<char>(digit(bytes[i]) * 16 + digit(bytes[i + 1]));
        }
        at += bytes.size() / 2;
      }
    }
    return each(from, mib);
  }

  double fill(std::uint64_t mib) {
    constexpr std::uint64_t kPiece = 8192;
    std::mt19937_64 random(mib);
    const auto from = Clock::now();
    for (std::uint64_t at = kMiB; at < kMiB + mib * kMiB; at += kPiece) {
      std::string packet = "X" + hex(at) + "," + hex(kPiece) + ":";
      for (std::uint64_t i = 0; i < kPiece; i += 8) {
        std::uint64_t bytes = random();
        for (int k = 0; k < 8; ++k, bytes >>= 8) {
          const char c = static_cast<char>(bytes);
          const bool escaped = c == '#' || c == '$' || c == '}' || c == '*';
          if (escaped) packet += '}';
          packet += escaped ? static_cast<char>(c ^ 0x20) : c;
        }
      }
      stub_.send(packet);
      if (stub_.receive() != "OK") throw NotOffered("X");
    }
    return each(from, mib);
  }

 private:
  static constexpr std::uint64_t kNever = 1 << 30;

  bool offers(std::string_view feature) const {
    return features_.find(feature) != std::string::npos;
  }

  static double each(Clock::time_point from, std::uint64_t count) {
    return std::chrono::duration<double, std::nano>(Clock::now() - from).count() /
           static_cast<double>(count);
  }

  void go_to_loop(std::uint64_t rounds) {
    (void)register_value(kRip);  // some stubs write to what was read last
    set_register(kRcx, rounds);
    set_register(kRip, begin_);
  }
  void set_register(unsigned number, std::uint64_t value) {
    stub_.expect_ok("P" + hex(number) + "=" + little_endian(value));
  }
  // All of them, as gdb does; single ones are not up to date in every stub.
  std::uint64_t register_value(unsigned number) {
    const std::string registers = stub_.ask("g");
    return little_endian(std::string_view(registers).substr(std::size_t{number} * 16, 16));
  }

  void wait() {
    for (;;) {
      const std::string_view answer = stub_.receive();
      if (answer.substr(0, 1) == "T" || answer.substr(0, 1) == "S") return;
      if (answer.substr(0, 1) != "O") {
        throw std::runtime_error("a stop was expected, " + std::string(answer) + " came");
      }
    }
  }
  void step() {
    stub_.send("vCont;s:1");
    wait();
  }

  // The least that a debugger does where the stub does not judge: what the condition needs, and a
  // step over.
  void judge_here(const std::string& insert, const std::string& remove) {
    for (;;) {
      stub_.send("vCont;c");
      wait();
      if (register_value(kRcx) == 0) return;
      stub_.expect_ok(remove);
      step();
      stub_.expect_ok(insert);
    }
  }

  Connection stub_;
  const std::uint64_t begin_, end_;
  std::string features_, resume_;
  std::uint64_t packet_size_ = 400;
};

double measure(Client& client, std::string_view what, std::uint64_t count,
               const std::string& kind) {
  if (what == "steps") return client.steps(count);
  if (what == "range") return client.range(count);
  if (what == "condition") return client.condition(count, kind);
  if (what == "memory") return client.memory(count);
  if (what == "fill") return client.fill(count);
  throw std::runtime_error("there is no measurement " + std::string(what));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 6) {
    std::fprintf(stderr, "usage: gdb_client SOCKET BEGIN END MEASUREMENT COUNT [KIND]\n");
    return 2;
  }
  try {
    Client client(argv[1], std::strtoull(argv[2], nullptr, 0), std::strtoull(argv[3], nullptr, 0));
    const double ns =
        measure(client, argv[4], std::strtoull(argv[5], nullptr, 0), argc > 6 ? argv[6] : "1");
    std::printf("%.1f\n", ns);
    return 0;
  } catch (const NotOffered& missing) {
    std::fprintf(stderr, "gdb_client: not offered: %s\n", missing.what());
    return 3;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "gdb_client: %s\n", error.what());
    return 1;
  }
}
