// Runs one fuzz target over the files of its corpus: what a fuzzer once found stays found, with
// every compiler.
//
//   replay DIRECTORY...
//   replay --noise COUNT [SEED]    makes up COUNT inputs instead, the same ones for the same seed;
//                                  the one that ends the program is left in the file bad-input
//   replay --mutate COUNT SEED DIRECTORY...    the same, of the files there: pieces changed, taken
//                                              out, doubled, and joined with those of others
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string_view>
#include <utility>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

constexpr const char* kBadInput = "bad-input";
std::vector<std::uint8_t> bytes_of_noise;

// What made the target abort is kept, as a fuzzer keeps it.
void keep_input(int) {
  const int fd = ::open(kBadInput, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd >= 0) (void)!::write(fd, bytes_of_noise.data(), bytes_of_noise.size());
}

void keep_bad_inputs() {
  for (const int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL}) {
    struct sigaction action {};
    action.sa_handler = keep_input;
    action.sa_flags = static_cast<int>(SA_RESETHAND);  // then as it would have ended
    ::sigaction(signal, &action, nullptr);
  }
}

using Bytes = std::vector<std::uint8_t>;

std::vector<Bytes> read_files(int count, char** directories) {
  std::vector<Bytes> files;
  for (int i = 0; i < count; ++i) {
    for (const auto& entry : std::filesystem::directory_iterator(directories[i])) {
      std::ifstream in(entry.path(), std::ios::binary);
      files.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
    }
  }
  return files;
}

// One input out of files that a target understands.
class Mutator {
 public:
  Mutator(std::vector<Bytes> files, std::uint64_t seed) : files_(std::move(files)), random_(seed) {}

  void next(Bytes& bytes) {
    constexpr std::size_t kMost = 4096;
    bytes = any_file();
    for (std::size_t left = 1 + below(8); left > 0; --left) change(bytes);
    if (bytes.size() > kMost) bytes.resize(kMost);
  }

 private:
  std::size_t below(std::size_t limit) { return limit == 0 ? 0 : random_() % limit; }
  const Bytes& any_file() { return files_[below(files_.size())]; }
  std::ptrdiff_t place(const Bytes& bytes) {
    return static_cast<std::ptrdiff_t>(below(bytes.size() + 1));
  }
  Bytes piece(const Bytes& of) {
    const std::size_t from = below(of.size());
    const std::size_t size = std::min(of.size() - from, 1 + below(64));
    return {of.begin() + static_cast<std::ptrdiff_t>(from),
            of.begin() + static_cast<std::ptrdiff_t>(from + size)};
  }

  void change(Bytes& bytes) {
    const std::ptrdiff_t at = place(bytes);
    switch (below(6)) {
      case 0:
        if (!bytes.empty()) bytes[below(bytes.size())] = static_cast<std::uint8_t>(random_());
        break;
      case 1:
        if (!bytes.empty()) bytes[below(bytes.size())] ^= static_cast<std::uint8_t>(1 << below(8));
        break;
      case 2:
        bytes.insert(bytes.begin() + at, static_cast<std::uint8_t>(random_()));
        break;
      case 3:
        bytes.erase(bytes.begin() + at,
                    bytes.begin() + std::min(static_cast<std::ptrdiff_t>(bytes.size()),
                                             at + static_cast<std::ptrdiff_t>(below(32))));
        break;
      case 4: {
        const Bytes doubled = piece(bytes);
        bytes.insert(bytes.begin() + at, doubled.begin(), doubled.end());
        break;
      }
      default: {
        const Bytes theirs = piece(any_file());
        bytes.insert(bytes.begin() + at, theirs.begin(), theirs.end());
      }
    }
  }

  const std::vector<Bytes> files_;
  std::mt19937_64 random_;
};

int mutate(std::size_t count, std::uint64_t seed, std::vector<Bytes> files) {
  if (files.empty()) return 1;
  Mutator mutator(std::move(files), seed);
  keep_bad_inputs();
  for (std::size_t i = 0; i < count; ++i) {
    mutator.next(bytes_of_noise);
    LLVMFuzzerTestOneInput(bytes_of_noise.data(), bytes_of_noise.size());
    constexpr std::size_t kOften = 1'000'000;
    if ((i + 1) % kOften == 0) {
      std::printf("%zu inputs\n", i + 1);
      std::fflush(stdout);
    }
  }
  std::printf("%zu inputs\n", count);
  return 0;
}

int noise(std::size_t count, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::uint8_t>& bytes = bytes_of_noise;
  keep_bad_inputs();
  for (std::size_t i = 0; i < count; ++i) {
    bytes.resize(random() % 1024 + 1);
    for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random());
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  }
  std::printf("%zu inputs\n", count);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc >= 3 && std::string_view(argv[1]) == "--noise") {
    return noise(std::strtoull(argv[2], nullptr, 0),
                 argc > 3 ? std::strtoull(argv[3], nullptr, 0) : 1);
  }
  if (argc >= 5 && std::string_view(argv[1]) == "--mutate") {
    return mutate(std::strtoull(argv[2], nullptr, 0), std::strtoull(argv[3], nullptr, 0),
                  read_files(argc - 4, argv + 4));
  }
  std::size_t files = 0;
  for (int i = 1; i < argc; ++i) {
    for (const auto& entry : std::filesystem::directory_iterator(argv[i])) {
      std::ifstream in(entry.path(), std::ios::binary);
      const std::vector<char> bytes{std::istreambuf_iterator<char>(in), {}};
      std::printf("%s: %zu bytes\n", entry.path().c_str(), bytes.size());
      std::fflush(stdout);  // so that the last line names the file that ended the program
      LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
      ++files;
    }
  }
  std::printf("%zu files\n", files);
  return files == 0 ? 1 : 0;
}
