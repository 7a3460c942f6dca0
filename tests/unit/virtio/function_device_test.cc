#include "devices/virtio/function_device.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "tests/support/device_conformance.h"
#include "tests/support/virtio/guest_ram.h"
#include "tests/support/virtio/mmio_driver.h"

namespace vmm::test {
namespace {

using virtio::FunctionDevice;
using Answer = FunctionDevice::Answer;
using Request = FunctionDevice::Request;

constexpr std::uint64_t kQuestion = 0x10'0000, kReply = 0x11'0000;
const std::vector<RingBuffer> kBuffers{{kQuestion, 4, false}, {kReply, 16, true}};

// What was asked, once more behind itself.
void repeat(Request& request) {
  std::string text(request.readable.remaining(), '?');
  request.readable.read(std::as_writable_bytes(std::span(text)));
  text += text;
  request.writable.write(std::as_bytes(std::span(text)));
}

// What a program would keep beside the device.
struct Program {
  Answer answer = Answer::kNow;
  std::vector<std::uint64_t> tokens;
  int resets = 0;
  std::string written;
  FunctionDevice* device = nullptr;

  std::unique_ptr<virtio::Device> make() {
    FunctionDevice::Handlers handlers{
        .request =
            [this](FunctionDevice&, Request& request) {
              tokens.push_back(request.token);
              if (answer == Answer::kNow) repeat(request);
              return answer;
            },
        .write_config =
            [this](FunctionDevice& self, std::uint32_t offset, std::span<const std::byte> bytes) {
              for (const std::byte byte : bytes) written += std::to_integer<char>(byte);
              self.set_config(offset, bytes);
            },
        .reset = [this] { ++resets; },
        .state = {.save = [] { return std::vector<std::byte>{std::byte{9}}; },
                  .restore = [](std::span<const std::byte> bytes) -> Result<void> {
                    if (bytes.size() != 1) return fail(ErrorCode::kBadState, "not one byte");
                    return {};
                  }}};
    auto made = std::make_unique<FunctionDevice>(
        "own0",
        FunctionDevice::Options{.type = virtio::DeviceType{42},
                                .features = 3,
                                .queue_sizes = {16, 16},
                                .config = std::vector<std::byte>(8)},
        std::move(handlers));
    device = made.get();
    return made;
  }
};

template <typename Ring>
class FunctionDeviceOn : public testing::Test {
 protected:
  FunctionDeviceOn() {
    EXPECT_TRUE(driver_.negotiate(Ring::kFeatures));
    EXPECT_TRUE(driver_.set_up_queue(0, ring_));
    driver_.driver_ok();
    rig_.serve();
    EXPECT_TRUE(memory_.write(Gpa(kQuestion), std::array<char, 4>{'p', 'i', 'n', 'g'}));
  }
  void ask() {
    ring_.add(kBuffers);
    driver_.notify(0);
    rig_.serve();
  }
  std::string reply() const {
    const auto text = memory_.read<std::array<char, 8>>(Gpa(kReply)).value();
    return {text.begin(), text.end()};
  }

  GuestMemory memory_ = make_ram();
  Program program_;
  MmioRig rig_{memory_, program_.make()};
  MmioDriver driver_{rig_.transport};
  Ring ring_{memory_, Gpa(0x8'0000), 16};
};
using Rings = testing::Types<SplitDriver, PackedDriver>;
TYPED_TEST_SUITE(FunctionDeviceOn, Rings);

TYPED_TEST(FunctionDeviceOn, Request_isAnsweredAtOnce) {
  this->ask();
  EXPECT_EQ(this->ring_.take_used().value().written, 8U);
  EXPECT_EQ(this->reply(), "pingping");
  EXPECT_EQ(this->driver_.take_interrupts(), 1U);
  EXPECT_EQ(this->program_.device->waiting(), 0U);
}

TYPED_TEST(FunctionDeviceOn, Request_isAnsweredLaterAndOnce) {
  this->program_.answer = Answer::kLater;
  this->ask();
  this->ask();
  EXPECT_FALSE(this->ring_.take_used());
  EXPECT_EQ(this->program_.device->waiting(), 2U);
  const std::uint64_t second = this->program_.tokens.at(1);
  EXPECT_TRUE(this->program_.device->finish(second, repeat));
  EXPECT_FALSE(this->program_.device->finish(second, repeat));
  EXPECT_EQ(this->ring_.take_used().value().written, 8U);
  EXPECT_FALSE(this->ring_.take_used());
  EXPECT_EQ(this->driver_.take_interrupts(), 1U);
}

TYPED_TEST(FunctionDeviceOn, Reset_forgetsRequests) {
  this->program_.answer = Answer::kLater;
  this->ask();
  const int before = this->program_.resets;
  this->driver_.put(MmioDriver::kStatus, 0);
  EXPECT_EQ(this->program_.resets, before + 1);
  EXPECT_FALSE(this->program_.device->finish(this->program_.tokens.at(0), repeat));
  EXPECT_EQ(this->reply(), std::string(8, '\0'));
}

TYPED_TEST(FunctionDeviceOn, Config_changesTellTheDriver) {
  const std::uint32_t generation = this->driver_.get(MmioDriver::kConfigGeneration);
  this->driver_.put(MmioDriver::kConfig + 4, 0x6463'6261);
  EXPECT_EQ(this->program_.written, "abcd");
  EXPECT_EQ(this->driver_.get(MmioDriver::kConfig + 4), 0x6463'6261U);
  EXPECT_NE(this->driver_.get(MmioDriver::kConfigGeneration), generation);
  this->program_.device->set_config(7, std::as_bytes(std::span("long")));
  this->program_.device->set_config(9, std::as_bytes(std::span("far")));
  EXPECT_EQ(this->driver_.get(MmioDriver::kConfig + 4), 0x6c63'6261U) << "what fits";
}

TYPED_TEST(FunctionDeviceOn, SavedRequest_comesAgainWhereItGoesOn) {
  this->program_.answer = Answer::kLater;
  this->ask();
  Program other;
  MmioRig rig(this->memory_, other.make());
  ASSERT_TRUE(restore_from(rig.transport, saved(this->rig_.transport)));
  EXPECT_EQ(other.tokens, this->program_.tokens);
  EXPECT_EQ(this->ring_.take_used().value().written, 8U);
  EXPECT_TRUE(rig.irq.level());
}

TYPED_TEST(FunctionDeviceOn, SavedRequestThatCannotBe_isRefused) {
  this->program_.answer = Answer::kLater;
  this->ask();
  const auto document = saved(this->rig_.transport);
  Program other;
  MmioRig rig(this->memory_, other.make());
  const auto refused = [&](const char* pointer, const nlohmann::json& value) {
    auto changed = document;
    changed[nlohmann::json::json_pointer(pointer)] = value;
    return !restore_from(rig.transport, changed);
  };
  const std::string state = "/parts/device/state";
  EXPECT_TRUE(refused((state + "/kept/0/queue").c_str(), 7));
  EXPECT_TRUE(refused((state + "/kept/0/token").c_str(), 99));
  EXPECT_TRUE(refused((state + "/kept/0/chain/slots").c_str(), 0));
  EXPECT_TRUE(refused((state + "/bytes").c_str(), nlohmann::json::binary({1, 2})));
  EXPECT_TRUE(refused((state + "/config").c_str(), nlohmann::json::binary({1})));
  EXPECT_TRUE(other.tokens.empty());
}

TYPED_TEST(FunctionDeviceOn, BreakDown_needsAReset) {
  this->program_.device->break_down("because");
  EXPECT_EQ(this->driver_.status() & virtio::kNeedsReset, virtio::kNeedsReset);
}

TEST(FunctionDevice, WithoutAFunctionRequestsComeBackEmpty) {
  const GuestMemory memory = make_ram();
  MmioRig rig(memory, std::make_unique<FunctionDevice>("own0", FunctionDevice::Options{},
                                                       FunctionDevice::Handlers{}));
  MmioDriver driver(rig.transport);
  SplitDriver ring(memory, Gpa(0x8'0000), 16);
  ASSERT_TRUE(driver.negotiate(SplitDriver::kFeatures));
  ASSERT_TRUE(driver.set_up_queue(0, ring));
  driver.driver_ok();
  ring.add(kBuffers);
  driver.notify(0);
  rig.serve();
  EXPECT_EQ(ring.take_used().value().written, 0U);
}

}  // namespace
}  // namespace vmm::test
