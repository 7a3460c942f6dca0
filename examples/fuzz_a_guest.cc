// A fuzzer for code in a guest: the guest is put back to one snapshot for each input, breakpoints
// that go away when they are met tell which inputs have come further, and these are mutated on. It
// finds a bug behind four bytes that have to be right.
//
//   examples/fuzz_a_guest [SEED]
#include <fmt/format.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <random>
#include <string_view>
#include <utility>
#include <vector>

#include "vmm/snapshot/snapshot.h"
#include "vmm/vm.h"
#include "vmm_testing/guest_code.h"

namespace {

// A parser for messages at 0x3000: "GET" and the number of one of four things. The bug: digits up
// to 7 are accepted. Each label fuzz_... is a place that not every message comes to.
VMM_GUEST_CODE(kParser, R"(
    out %al, $0x80                  # ready: the next message is to be put at 0x3000
    mov $0x3000, %esi
    cmpb $'G', (%rsi)
    jne .Lfuzz_end
  fuzz_g:
    cmpb $'E', 1(%rsi)
    jne .Lfuzz_end
  fuzz_e:
    cmpb $'T', 2(%rsi)
    jne .Lfuzz_end
  fuzz_t:
    movzbl 3(%rsi), %eax
    sub $'0', %eax
    cmp $7, %eax
    ja .Lfuzz_end
  fuzz_digit:
    lea .Lfuzz_things(%rip), %rdx
    jmp *(%rdx, %rax, 8)
  fuzz_thing:
    nop
  .Lfuzz_end:
    out %al, $0x81                  # done
    hlt
    .balign 8
  .Lfuzz_things:
    .rept 4
    .quad 0x1000 + fuzz_thing - vmm_guest_code_begin_kParser
    .endr
    .rept 4
    .quad 0xbadbadbadbadbad         # what lies behind the table
    .endr
    .hidden fuzz_g, fuzz_e, fuzz_t, fuzz_digit, fuzz_thing
    .globl fuzz_g, fuzz_e, fuzz_t, fuzz_digit, fuzz_thing
)");
extern "C" const std::byte fuzz_g[], fuzz_e[], fuzz_t[], fuzz_digit[], fuzz_thing[];

constexpr vmm::Gpa kCode(0x1000);
constexpr vmm::Gpa kMessage(0x3000);
constexpr std::chrono::seconds kPatience{30};
constexpr std::uint64_t kMostRuns = 50'000;

using Message = std::array<char, 6>;

struct Place {
  std::string_view name;
  const std::byte* label;
};
constexpr std::array<Place, 5> kPlaces{
    {{"g", fuzz_g}, {"e", fuzz_e}, {"t", fuzz_t}, {"digit", fuzz_digit}, {"thing", fuzz_thing}}};

// Ends the program with the reason.
[[noreturn]] void give_up(const vmm::Error& error) {
  fmt::print(stderr, "fuzz_a_guest: {}\n", error.message());
  // Without KVM there is nothing to fuzz: Meson's exit status for a test that skips itself.
  std::exit(error.code() == vmm::ErrorCode::kNoKvm ? 77 : 1);
}
template <typename T>
T good(vmm::Result<T> result) {
  if (!result) give_up(result.error());
  return *std::move(result);
}
void good(const vmm::Result<void>& result) {
  if (!result) give_up(result.error());
}

std::string_view text(const Message& message) { return {message.data(), message.size()}; }

class Fuzzer {
 public:
  Fuzzer(vmm::Vm& vm, std::shared_ptr<const vmm::Snapshot> ready, std::uint32_t seed)
      : vm_(vm), ready_(std::move(ready)), random_(seed) {}

  // A message that the guest does not survive, if one was found.
  std::optional<Message> fuzz(std::uint64_t most_runs) {
    corpus_ = {{'?', '?', '?', '?', '?', '?'}};
    while (runs_ < most_runs) {
      // What came furthest is worth most, but may be a dead end.
      const bool newest = random_() % 2 == 0;
      const Message message =
          mutated(newest ? corpus_.back() : corpus_[random_() % corpus_.size()]);
      if (!survives(message)) return message;
    }
    return std::nullopt;
  }
  std::uint64_t runs() const { return runs_; }

 private:
  // Some bytes are others, from ' ' to '_'. The standard's generator gives the same numbers
  // everywhere; its distributions would not.
  Message mutated(Message message) {
    do {
      message[random_() % message.size()] = static_cast<char>(' ' + random_() % 64);
    } while (random_() % 4 == 0);
    return message;
  }

  bool survives(const Message& message) {
    ++runs_;
    good(vm_.reset_to(ready_));
    good(vm_.memory().write(kMessage, message));
    const std::size_t known = unseen_.size();
    for (;;) {
      const auto end = good(vm_.run_until(conditions(), kPatience));
      if (!end.met) {
        fmt::print("{:7} runs: '{}' ends the guest: {}\n", runs_, text(message),
                   vmm::to_string(end.stop.reason));
        return false;
      }
      if (*end.met == 0) break;
      // Once is enough: from now on the guest passes here at full speed.
      const auto met = unseen_.begin() + static_cast<std::ptrdiff_t>(*end.met) - 1;
      fmt::print("{:7} runs: '{}' comes to '{}'\n", runs_, text(message), met->name);
      unseen_.erase(met);
    }
    if (unseen_.size() < known) corpus_.push_back(message);
    return true;
  }

  std::vector<vmm::Condition> conditions() const {
    std::vector<vmm::Condition> all{vmm::UntilExit{.kind = "pio", .address = 0x81}};
    for (const Place& place : unseen_) {
      const auto offset = static_cast<std::uint64_t>(place.label - kParser.bytes().data());
      all.emplace_back(vmm::UntilPhysicalAddress{vmm::Gpa(kCode.value + offset)});
    }
    return all;
  }

  vmm::Vm& vm_;
  const std::shared_ptr<const vmm::Snapshot> ready_;
  std::mt19937 random_;
  std::vector<Place> unseen_{kPlaces.begin(), kPlaces.end()};
  std::vector<Message> corpus_;
  std::uint64_t runs_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  const auto seed = static_cast<std::uint32_t>(argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 2);
  vmm::VmConfig config;
  config.memory.size = vmm::MiB(2);
  config.irqchip = vmm::IrqchipMode::kNone;
  config.boot = vmm::FlatBoot{.image = kParser.image(), .address = kCode};
  const auto vm = good(vmm::Vm::create(std::move(config)));
  const auto ready =
      good(vm->run_until({vmm::UntilExit{.kind = "pio", .address = 0x80}}, kPatience));
  if (!ready) return 1;

  const auto begin = std::chrono::steady_clock::now();
  Fuzzer fuzzer(*vm, good(vm->snapshot()), seed);
  const auto found = fuzzer.fuzz(kMostRuns);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  fmt::print("{} runs, {:.0f} in a second\n", fuzzer.runs(),
             static_cast<double>(fuzzer.runs()) / took.count());
  const bool right = found && text(*found).starts_with("GET") && (*found)[3] >= '4';
  if (!right) fmt::print("NOT SO: the bug that was planted was to be found\n");
  return right ? 0 : 1;
}
