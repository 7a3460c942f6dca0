// Runs one fuzz target over the files of its corpus: what a fuzzer once found stays found, with
// every compiler.
//
//   replay DIRECTORY...
//   replay --noise COUNT [SEED]    makes up COUNT inputs instead, the same ones for the same seed;
//                                  the one that ends the program is left in the file bad-input
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string_view>
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

int noise(std::size_t count, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::uint8_t>& bytes = bytes_of_noise;
  ::signal(SIGABRT, keep_input);
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
