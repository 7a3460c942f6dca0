#include "devices/i8042.h"

#include <utility>

#include "devices/state_io.h"

namespace vmm {
namespace {

// Status port.
constexpr unsigned kStatusObf = 0x01;  // output buffer full
constexpr unsigned kStatusSys = 0x04;  // system flag
constexpr unsigned kStatusA2 = 0x08;   // the last write went to the command port
constexpr unsigned kStatusUnlocked = 0x10;
constexpr unsigned kStatusAuxObf = 0x20;  // the byte is the auxiliary device's
constexpr unsigned kStatusTimeout = 0x40;

// Command byte.
constexpr std::uint8_t kInterruptKeyboard = 0x01;
constexpr std::uint8_t kInterruptAux = 0x02;
constexpr std::uint8_t kSystemFlag = 0x04;
constexpr std::uint8_t kDisableKeyboard = 0x10;
constexpr std::uint8_t kDisableAux = 0x20;

// Output port.
constexpr std::uint8_t kOutputNotReset = 0x01;
constexpr std::uint8_t kOutputA20 = 0x02;

// Controller commands.
constexpr std::uint8_t kReadRam = 0x20;   // to 0x3f
constexpr std::uint8_t kWriteRam = 0x60;  // to 0x7f
constexpr std::uint8_t kRamMask = 0x1f;
constexpr std::uint8_t kDisableAuxPort = 0xa7;
constexpr std::uint8_t kEnableAuxPort = 0xa8;
constexpr std::uint8_t kTestAuxPort = 0xa9;
constexpr std::uint8_t kSelfTest = 0xaa;
constexpr std::uint8_t kTestKeyboardPort = 0xab;
constexpr std::uint8_t kDisableKeyboardPort = 0xad;
constexpr std::uint8_t kEnableKeyboardPort = 0xae;
constexpr std::uint8_t kReadInputPort = 0xc0;
constexpr std::uint8_t kReadOutputPort = 0xd0;
constexpr std::uint8_t kWriteOutputPort = 0xd1;
constexpr std::uint8_t kWriteKeyboardBuffer = 0xd2;
constexpr std::uint8_t kWriteAuxBuffer = 0xd3;
constexpr std::uint8_t kWriteToAux = 0xd4;
constexpr std::uint8_t kA20Off = 0xdd;
constexpr std::uint8_t kA20On = 0xdf;
constexpr std::uint8_t kReadTestInputs = 0xe0;
constexpr std::uint8_t kPulse = 0xf0;  // to 0xff: low bits that are 0 are pulsed low

constexpr std::uint8_t kSelfTestPassed = 0x55;
constexpr std::uint8_t kPortTestPassed = 0x00;
constexpr std::uint8_t kPortTestClockLow = 0x01;
constexpr std::uint8_t kInputPort = 0x80;  // keyboard not locked

// Keyboard commands and answers.
constexpr std::uint8_t kAck = 0xfa;
constexpr std::uint8_t kResendAnswer = 0xfe;
constexpr std::uint8_t kTestPassed = 0xaa;
constexpr std::uint8_t kSetLeds = 0xed;
constexpr std::uint8_t kEcho = 0xee;
constexpr std::uint8_t kScancodeSet = 0xf0;
constexpr std::uint8_t kIdentify = 0xf2;
constexpr std::uint8_t kSetTypematic = 0xf3;
constexpr std::uint8_t kEnableScanning = 0xf4;
constexpr std::uint8_t kDisableScanning = 0xf5;
constexpr std::uint8_t kSetDefaults = 0xf6;
constexpr std::uint8_t kAllKeysFirst = 0xf7;  // set 3's key types: accepted, without effect
constexpr std::uint8_t kAllKeysLast = 0xfd;
constexpr std::uint8_t kResend = 0xfe;
constexpr std::uint8_t kKeyboardReset = 0xff;
constexpr std::uint8_t kKeyboardId[] = {0xab, 0x83};

}  // namespace

Result<void> I8042::Output::validate() const {
  if (source > Source::kAuxTimeout) {
    return fail(ErrorCode::kBadState, "A keyboard controller's byte comes from nowhere ({})",
                static_cast<unsigned>(source));
  }
  return {};
}

Result<void> I8042::State::validate() const {
  if (scancode_set < 1 || scancode_set > 3) {
    return fail(ErrorCode::kBadState, "There is no scan code set {}", scancode_set);
  }
  return {};
}

I8042::I8042(std::string id, Ports ports) : ports_(ports), id_(std::move(id)) {}

std::uint8_t I8042::status() const {
  unsigned status = kStatusUnlocked;
  if ((s_.ram[0] & kSystemFlag) != 0) status |= kStatusSys;
  if (s_.last_was_command) status |= kStatusA2;
  if (s_.output) {
    status |= kStatusObf;
    if (s_.output->source >= Source::kAux) status |= kStatusAuxObf;
    if (s_.output->source == Source::kAuxTimeout) status |= kStatusTimeout;
  }
  return static_cast<std::uint8_t>(status);
}

bool I8042::irq_asserted(bool aux) const {
  if (!s_.output || (s_.output->source >= Source::kAux) != aux) return false;
  return (s_.ram[0] & (aux ? kInterruptAux : kInterruptKeyboard)) != 0;
}

void I8042::settle() {
  ports_.keyboard_irq.set_level(irq_asserted(false));
  ports_.aux_irq.set_level(ports_.aux_port && irq_asserted(true));
}

// A disabled interface holds its device's clock low: what the device has to say waits there.
bool I8042::may_send(Source source) const {
  switch (source) {
    case Source::kKeyboard:
      return (s_.ram[0] & kDisableKeyboard) == 0;
    case Source::kController:
    case Source::kAux:
    case Source::kAuxTimeout:
      return true;
  }
  return true;
}

// The first answer that may go, goes; the others keep their order.
void I8042::fill() {
  for (std::size_t turn = s_.waiting.size(); turn > 0; --turn) {
    const Output next = *s_.waiting.pop();
    if (!s_.output && may_send(next.source)) {
      s_.output = next;
    } else {
      s_.waiting.push(next);
    }
  }
}

void I8042::answer(std::uint8_t value, Source source) {
  s_.waiting.push({value, source});
  fill();
}

void I8042::keyboard_answer(std::uint8_t value) {
  s_.keyboard_last = value;
  answer(value, Source::kKeyboard);
}

// The lines go low between two bytes: the ISA interrupts are edges, and each byte wants its own.
std::uint8_t I8042::read_data() {
  if (s_.output) {
    s_.last_output = s_.output->value;
    s_.output.reset();
    settle();
    fill();
  }
  return s_.last_output;
}

void I8042::request_reset() {
  if (ports_.events != nullptr) ports_.events->request(GuestRequest::kReset, 0);
}

void I8042::write_output_port(std::uint8_t value) {
  s_.output_port = value | kOutputNotReset;  // after the pulse it is high again
  if ((value & kOutputNotReset) == 0) request_reset();
}

void I8042::pulse_output_port(std::uint8_t command) {
  if ((command & kOutputNotReset) == 0) request_reset();
}

void I8042::write_command(std::uint8_t command) {
  s_.last_was_command = true;
  s_.command = 0;
  if (command >= kPulse) return pulse_output_port(command);
  if (command >= kReadRam && command <= (kReadRam | kRamMask)) {
    return answer(s_.ram[command & kRamMask], Source::kController);
  }
  if (command >= kWriteRam && command <= (kWriteRam | kRamMask)) {
    s_.command = command;
    return;
  }
  switch (command) {
    case kDisableAuxPort:
      s_.ram[0] |= kDisableAux;
      break;
    case kEnableAuxPort:
      if (ports_.aux_port) s_.ram[0] &= static_cast<std::uint8_t>(~kDisableAux);
      break;
    case kTestAuxPort:
      answer(ports_.aux_port ? kPortTestPassed : kPortTestClockLow, Source::kController);
      break;
    case kSelfTest:
      s_.ram[0] |= kSystemFlag;
      answer(kSelfTestPassed, Source::kController);
      break;
    case kTestKeyboardPort:
      answer(kPortTestPassed, Source::kController);
      break;
    case kDisableKeyboardPort:
      s_.ram[0] |= kDisableKeyboard;
      break;
    case kEnableKeyboardPort:
      s_.ram[0] &= static_cast<std::uint8_t>(~kDisableKeyboard);
      fill();
      break;
    case kReadInputPort:
      answer(kInputPort, Source::kController);
      break;
    case kReadOutputPort:
      answer(s_.output_port, Source::kController);
      break;
    case kWriteOutputPort:
    case kWriteKeyboardBuffer:
    case kWriteAuxBuffer:
    case kWriteToAux:
      s_.command = command;
      break;
    case kA20Off:
      s_.output_port &= static_cast<std::uint8_t>(~kOutputA20);
      break;
    case kA20On:
      s_.output_port |= kOutputA20;
      break;
    case kReadTestInputs:
      answer(0, Source::kController);
      break;
    default:  // the controller ignores what it does not know
      break;
  }
}

void I8042::write_data(std::uint8_t value) {
  s_.last_was_command = false;
  const std::uint8_t command = std::exchange(s_.command, std::uint8_t{0});
  switch (command) {
    case 0:
      // A byte for the keyboard turns its interface on.
      s_.ram[0] &= static_cast<std::uint8_t>(~kDisableKeyboard);
      keyboard_byte(value);
      break;
    case kWriteOutputPort:
      write_output_port(value);
      break;
    case kWriteKeyboardBuffer:
      answer(value, Source::kKeyboard);
      break;
    case kWriteAuxBuffer:
      // Without an aux port the byte comes back as the keyboard's: a driver's loop test sees at
      // once that there is none.
      answer(value, ports_.aux_port ? Source::kAux : Source::kController);
      break;
    case kWriteToAux:
      // Nothing is plugged in: the controller reports 0xfe with the time-out bit.
      if (ports_.aux_port) {
        s_.ram[0] &= static_cast<std::uint8_t>(~kDisableAux);
        answer(kResendAnswer, Source::kAuxTimeout);
      }
      break;
    default:
      s_.ram[command & kRamMask] = value;
      if (!ports_.aux_port) s_.ram[0] |= kDisableAux;
      fill();
      break;
  }
}

void I8042::keyboard_defaults() {
  s_.typematic = State{}.typematic;
  s_.scancode_set = State{}.scancode_set;
}

void I8042::keyboard_parameter(std::uint8_t value) {
  const std::uint8_t command = std::exchange(s_.keyboard_command, std::uint8_t{0});
  keyboard_answer(kAck);
  if (command == kSetLeds) {
    s_.leds = value & 0x07;
  } else if (command == kSetTypematic) {
    s_.typematic = value & 0x7f;
  } else if (value == 0) {  // kScancodeSet: which one is it?
    keyboard_answer(s_.scancode_set);
  } else if (value <= 3) {
    s_.scancode_set = value;
  }
}

// A byte with the top bits of a command ends a parameter that was due, as keyboards do.
void I8042::keyboard_byte(std::uint8_t value) {
  if (s_.keyboard_command != 0 && value < kSetLeds) return keyboard_parameter(value);
  s_.keyboard_command = 0;
  if (value >= kAllKeysFirst && value <= kAllKeysLast) return keyboard_answer(kAck);
  switch (value) {
    case kSetLeds:
    case kScancodeSet:
    case kSetTypematic:
      s_.keyboard_command = value;
      keyboard_answer(kAck);
      break;
    case kEcho:
      keyboard_answer(kEcho);
      break;
    case kIdentify:
      keyboard_answer(kAck);
      for (const std::uint8_t byte : kKeyboardId) keyboard_answer(byte);
      break;
    case kEnableScanning:
      s_.scanning = true;
      keyboard_answer(kAck);
      break;
    case kDisableScanning:
      s_.scanning = false;
      keyboard_defaults();
      keyboard_answer(kAck);
      break;
    case kSetDefaults:
      keyboard_defaults();
      keyboard_answer(kAck);
      break;
    case kResend:
      answer(s_.keyboard_last, Source::kKeyboard);
      break;
    case kKeyboardReset:
      keyboard_defaults();
      s_.leds = 0;
      s_.scanning = true;
      keyboard_answer(kAck);
      keyboard_answer(kTestPassed);
      break;
    default:
      keyboard_answer(kResendAnswer);
      break;
  }
}

void I8042::read(const IoAccess& access, std::span<std::byte> data) {
  if (data.empty()) return;
  if (access.offset == kDataOffset) {
    data[0] = std::byte{read_data()};
  } else if (access.offset == kCommandOffset) {
    data[0] = std::byte{status()};
  }
  settle();
}

void I8042::write(const IoAccess& access, std::span<const std::byte> data) {
  if (data.empty()) return;
  const auto value = std::to_integer<std::uint8_t>(data[0]);
  if (access.offset == kDataOffset) {
    write_data(value);
  } else if (access.offset == kCommandOffset) {
    write_command(value);
  }
  settle();
}

void I8042::reset() {
  s_ = State{};
  settle();
}

void I8042::save(StateWriter& writer) const { writer.put(s_); }

Result<void> I8042::restore(const StateReader& reader) {
  s_ = VMM_TRY(reader.get<State>());
  settle();
  return {};
}

}  // namespace vmm
