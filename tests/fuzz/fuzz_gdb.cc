// Any bytes from a debugger, in pieces, with stops of the guest among them.
#include <algorithm>
#include <cstdint>
#include <string_view>

#include "fuzz/fuzz_input.h"
#include "support/fakes/debug_target.h"
#include "vmm/debug/packet.h"
#include "vmm/debug/session.h"

namespace {

using namespace vmm;  // NOLINT(google-build-using-namespace)

// Packets come back from the reader as they went into the encoder.
void check_codec(std::string_view payload) {
  payload = payload.substr(0, debug::kMostPayload);
  debug::PacketReader reader;
  const std::string wire = debug::encode_packet(payload);
  fuzz::require(test::decode_payload(std::string_view(wire).substr(1, wire.size() - 4)) == payload);
}

}  // namespace

// Each piece begins with its length; a length of 255 lets the guest stop, 254 frames what follows
// up to the next zero byte as a packet, so that the session's commands are met often.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string_view input(reinterpret_cast<const char*>(data), size);
  check_codec(input);
  test::FakeDebugTarget target(3);
  // Descriptions are made once: they would take most of the time.
  static debug::SessionSettings settings;
  settings.architecture.reset();
  completion::XsaveLayout layout{};
  layout.components[2] = {576, 256, false};
  debug::Session session(target, settings, layout);
  while (!input.empty() && !session.ended()) {
    const auto length = static_cast<std::uint8_t>(input.front());
    input.remove_prefix(1);
    if (length == 255) {
      if (session.guest_runs()) session.on_stop({.kind = debug::StopKind::kStep, .cpu = 1});
    } else if (length == 254) {
      const std::size_t end = std::min(input.find('\0'), input.size());
      session.receive(test::frame_request(input.substr(0, end)));
      input.remove_prefix(std::min(end + 1, input.size()));
    } else {
      const std::string_view piece = input.substr(0, length);
      session.receive(piece);
      input.remove_prefix(piece.size());
    }
    // One answer holds no more than what was agreed, and there are few for one request.
    fuzz::require(session.take_output().size() < 16 * debug::kMostPayload);
    target.log.clear();
  }
  return 0;
}
