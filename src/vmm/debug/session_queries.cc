#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <vector>

#include "vmm/debug/session.h"

// The packets that begin with q, Q and v.
namespace vmm::debug {
namespace {

constexpr unsigned kBadRequest = 0x16;  // EINVAL

// Whether `text` begins with `word`, which is taken away then.
bool take(std::string_view& text, std::string_view word) {
  if (text.substr(0, word.size()) != word) return false;
  text.remove_prefix(word.size());
  return true;
}

}  // namespace

bool Session::query(std::string_view rest) {
  if (take(rest, "Supported")) {
    tell_features(rest);
  } else if (take(rest, "Xfer:")) {
    return transfer(rest);
  } else if (take(rest, "Rcmd,")) {
    command(rest);
  } else if (take(rest, "ThreadExtraInfo,")) {
    thread_extra(rest);
  } else if (rest == "C") {
    send(fmt::format("QC{:x}", general_cpu_ + 1));
  } else if (rest == "fThreadInfo") {
    std::string list;
    for (unsigned i = 0; i < target_.cpus(); ++i) {
      list += fmt::format("{}{:x}", i == 0 ? "m" : ",", i + 1);
    }
    send(list);
  } else if (rest == "sThreadInfo") {
    send("l");
  } else if (take(rest, "Attached")) {
    send("1");  // so that gdb detaches when it quits, and does not kill
  } else if (take(rest, "Symbol:")) {
    send_ok();
  } else if (rest == "Offsets") {
    const auto offset = target_.kernel_offset();
    if (!offset) return false;
    // By segments everything moves; otherwise only what stands in .text, .data and .bss.
    if (const auto segments = target_.kernel_segments()) {
      send(fmt::format("TextSeg={:x};DataSeg={:x}", segments->text + *offset,
                       segments->data + *offset));
    } else {
      send(fmt::format("Text={0:x};Data={0:x};Bss={0:x}", *offset));
    }
  } else if (rest == "qemu.PhyMemMode") {
    send(physical_ ? "1" : "0");
  } else {
    return false;
  }
  return true;
}

bool Session::set(std::string_view rest) {
  if (rest == "StartNoAckMode") {
    send_ok();
    acknowledge_ = false;
  } else if (take(rest, "qemu.PhyMemMode:")) {
    const auto value = take_hex(rest);
    if (!value) {
      send_error(kBadRequest);
    } else {
      physical_ = *value != 0;
      send_ok();
    }
  } else {
    return false;
  }
  return true;
}

bool Session::verbose(std::string_view rest) {
  if (rest == "Cont?") {
    send("vCont;c;C;s;S;r");
  } else if (take(rest, "Cont;")) {
    if (!resume_by_thread(rest)) send_error(kBadRequest);
  } else if (take(rest, "Kill")) {
    send_ok();
    ended_ = true;
    target_.kill();
  } else {
    return false;
  }
  return true;
}

bool Session::resume_by_thread(std::string_view rest) {
  std::vector<ResumeAction> actions(target_.cpus());
  std::vector<bool> decided(target_.cpus(), false);
  while (!rest.empty()) {
    ResumeAction action;
    const char what = rest.front();
    rest.remove_prefix(1);
    switch (what) {
      case 'C':
      case 'S':
        if (!take_hex(rest)) return false;  // the signal
        [[fallthrough]];
      case 'c':
      case 's':
        action.kind =
            what == 'c' || what == 'C' ? ResumeAction::Kind::kContinue : ResumeAction::Kind::kStep;
        break;
      case 'r': {
        const auto begin = take_hex(rest);
        if (!begin || !take(rest, ",")) return false;
        const auto end = take_hex(rest);
        if (!end) return false;
        action = {ResumeAction::Kind::kStepRange, *begin, *end};
        break;
      }
      default:
        return false;
    }
    ThreadChoice choice{.all = true};
    if (take(rest, ":")) {
      const auto named = take_thread(rest);
      if (!named) return false;
      choice = *named;
      if (choice.any) choice.cpu = control_cpu_;
    }
    if (!rest.empty() && !take(rest, ";")) return false;
    // The leftmost action that names a CPU is its action.
    for (unsigned i = 0; i < actions.size(); ++i) {
      if (decided[i] || !(choice.all || choice.cpu == i)) continue;
      actions[i] = action;
      decided[i] = true;
    }
  }
  if (std::find(decided.begin(), decided.end(), true) == decided.end()) return false;
  resume(actions);
  return true;
}

void Session::tell_features(std::string_view rest) {
  knows_swbreak_ = rest.find("swbreak+") != std::string_view::npos;
  knows_hwbreak_ = rest.find("hwbreak+") != std::string_view::npos;
  send(
      fmt::format("PacketSize={:x};QStartNoAckMode+;vContSupported+;swbreak+;hwbreak+;"
                  "binary-upload+;ConditionalBreakpoints+;ReverseStep+;ReverseContinue+;qXfer:"
                  "features:read+;qXfer:memory-map:"
                  "read+;qXfer:threads:read+",
                  kMostPayload));
}

void Session::thread_extra(std::string_view rest) {
  const auto choice = take_thread(rest);
  if (!choice || choice->all || choice->any) return send_error(kBadRequest);
  send(to_hex(fmt::format("CPU {} [{}]", choice->cpu, target_.activity(choice->cpu))));
}

// gdb looks at memory only where the map has some: by virtual addresses that is everywhere, since
// no map of ours could follow the guest's page tables.
std::string Session::memory_map() const {
  std::string text = "<memory-map>";
  if (physical_) {
    for (const auto& [base, size] : target_.ram()) {
      text += fmt::format("<memory type=\"ram\" start=\"{:#x}\" length=\"{:#x}\"/>", base, size);
    }
  } else {
    text += "<memory type=\"ram\" start=\"0x0\" length=\"0xffffffffffffffff\"/>";
  }
  return text + "</memory-map>";
}

std::string Session::threads() {
  std::string text = "<threads>";
  for (unsigned i = 0; i < target_.cpus(); ++i) {
    text += fmt::format("<thread id=\"{:x}\" core=\"{}\" name=\"CPU {}\">{}</thread>", i + 1, i, i,
                        target_.activity(i));
  }
  return text + "</threads>";
}

bool Session::transfer(std::string_view rest) {
  std::string document;
  if (take(rest, "features:read:target.xml:")) {
    document = map().xml();
  } else if (take(rest, "memory-map:read::")) {
    document = memory_map();
  } else if (take(rest, "threads:read::")) {
    document = threads();
  } else if (take(rest, "features:read:")) {
    send_error(0);  // there is no such annex
    return true;
  } else {
    return false;
  }
  const auto offset = take_hex(rest);
  const bool comma = take(rest, ",");
  const auto size = take_hex(rest);
  if (!offset || !comma || !size || !rest.empty()) {
    send_error(kBadRequest);
    return true;
  }
  const std::size_t from = std::min<std::uint64_t>(*offset, document.size());
  const std::size_t n = std::min<std::uint64_t>({*size, document.size() - from, kMostPayload / 2});
  send((from + n == document.size() ? "l" : "m") + document.substr(from, n));
  return true;
}

bool Session::own_command(std::string_view text) {
  if (!take(text, "arch")) return false;
  if (text.empty()) {
    send_text(fmt::format(
        "Registers are described as {} in this connection.\n",
        to_string(settings_.architecture.value_or(target_.architecture(general_cpu_)))));
    send_ok();
    return true;
  }
  static constexpr std::array<std::pair<std::string_view, Architecture>, 3> kNames{
      {{"x86-64", Architecture::kX86_64},
       {"i386", Architecture::kI386},
       {"i8086", Architecture::kI8086}}};
  if (!take(text, " ")) return false;
  const auto found = std::find_if(kNames.begin(), kNames.end(),
                                  [text](const auto& entry) { return entry.first == text; });
  if (found != kNames.end()) {
    settings_.architecture = found->second;
  } else if (text == "auto") {
    settings_.architecture.reset();
  } else {
    send_text("arch auto|x86-64|i386|i8086\n");
    send_ok();
    return true;
  }
  send_text("From the next connection on: \"disconnect\" and \"target remote\" again.\n");
  send_ok();
  return true;
}

void Session::command(std::string_view rest) {
  const auto text = from_hex(rest);
  if (!text) return send_error(kBadRequest);
  if (own_command(*text)) return;
  const auto answer = target_.monitor(general_cpu_, *text);
  send_text(answer ? *answer : answer.error().message() + "\n");
  send_ok();
  // A command may have changed what was seen.
  seen_.reset();
}

}  // namespace vmm::debug
