// The first byte chooses a format, the rest is a stream of it.
#include <cstdint>

#include "fuzz/fuzz_input.h"
#include "vmm/loader/decompress.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace vmm;  // NOLINT(google-build-using-namespace): a fuzz target is one function
  constexpr std::uint64_t kLimit = 1U << 20;
  if (size == 0) return 0;
  const auto format = static_cast<loader::Compression>(data[0] % 8);
  const auto in = fuzz::bytes(data + 1, size - 1);
  std::uint64_t taken = 0;
  const auto result =
      loader::decompress(format, in, kLimit, [&](std::span<const std::byte> piece) -> Result<void> {
        taken += piece.size();
        fuzz::require(taken <= kLimit);
        return {};
      });
  if (!result) {
    fuzz::require(!result.error().message().empty());
    return 0;
  }
  fuzz::require(result->produced == taken);
  fuzz::require(result->consumed <= in.size());
  return 0;
}
