// Any bytes as the state in a snapshot.
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "fuzz/fuzz_input.h"
#include "vmm/snapshot/machine_state.h"

namespace {

using nlohmann::json;

std::string shown(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace vmm;  // NOLINT(google-build-using-namespace): a fuzz target is one function
  const auto bytes = fuzz::bytes(data, size);
  auto packed = PackedState::parse({bytes.begin(), bytes.end()});
  if (!packed) return 0;
  // What is taken is what the library, which writes states, makes of it.
  const json same = json::from_cbor(data, data + size, /*strict=*/true, /*allow_exceptions=*/false);
  fuzz::require(!same.is_discarded() && shown(packed->json(0)) == shown(same));
  const StateDocument document(*std::move(packed));
  (void)from_document(document);
  return 0;
}
