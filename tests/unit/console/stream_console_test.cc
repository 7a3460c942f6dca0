#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <atomic>
#include <filesystem>
#include <fstream>

#include "console_support.h"
#include "vmm/console/console_backend.h"

namespace vmm {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using test::bytes_of;
using test::eventually;
using test::Pipe;
using test::SlowReceiver;

std::unique_ptr<ConsoleBackend> stream(int input, int output, ConsoleOptions options = {}) {
  auto backend = ConsoleBackend::create(StreamConsole{.input_fd = input, .output_fd = output},
                                        std::move(options));
  return backend ? std::move(*backend) : nullptr;
}

TEST(StreamConsole, WritesAtOnceWhatThePipeTakes) {
  Pipe pipe;
  const auto console = stream(-1, pipe.write_end.get());
  console->write(bytes_of("hello"));
  // No waiting: it is in the pipe when write() returns.
  pollfd ask{pipe.read_end.get(), POLLIN, 0};
  EXPECT_EQ(::poll(&ask, 1, 0), 1);
  EXPECT_EQ(test::read_text(pipe.read_end.get(), 5), "hello");
}

TEST(StreamConsole, SlowReaderLosesNothing) {
  Pipe pipe;
  const auto console = stream(-1, pipe.write_end.get());
  const std::string text = test::pattern(600'000);  // far more than the pipe holds
  console->write(bytes_of(text));
  EXPECT_EQ(test::read_text(pipe.read_end.get(), text.size()), text);
  EXPECT_EQ(console->stats().output_dropped, 0U);
}

TEST(StreamConsole, ShowsThatItIsBehindAndTellsWhenItIsNoMore) {
  Pipe pipe;
  const auto console = stream(-1, pipe.write_end.get(), {.output_buffer = KiB(64)});
  std::atomic<int> calls{0};
  console->on_writable([&] { ++calls; });
  const std::string text = test::pattern(KiB(64) + KiB(60));  // the pipe itself holds 64 KiB
  console->write(bytes_of(text));
  EXPECT_FALSE(console->writable());
  EXPECT_EQ(calls, 0);
  EXPECT_EQ(test::read_text(pipe.read_end.get(), text.size()), text);
  EXPECT_TRUE(eventually([&] { return calls == 1; }));
  EXPECT_TRUE(console->writable());
  console->on_writable({});
}

TEST(StreamConsole, CountsWhatDoesNotFitItsBuffer) {
  Pipe pipe;
  const auto console = stream(-1, pipe.write_end.get(), {.output_buffer = KiB(16)});
  const std::string text = test::pattern(KiB(256));
  console->write(bytes_of(text));
  const ConsoleStats stats = console->stats();
  EXPECT_GE(stats.output_dropped, KiB(256) - KiB(64) - KiB(16) - KiB(64));
  EXPECT_EQ(stats.output_bytes, KiB(256));
  const std::size_t kept = KiB(256) - stats.output_dropped;
  EXPECT_EQ(test::read_text(pipe.read_end.get(), kept), text.substr(0, kept));
}

TEST(StreamConsole, FlushWaitsForTheReader) {
  Pipe pipe;
  const auto console = stream(-1, pipe.write_end.get());
  console->write(bytes_of(test::pattern(300'000)));
  EXPECT_FALSE(console->flush(milliseconds(10)));
  std::thread reader([&] { test::read_text(pipe.read_end.get(), 300'000); });
  EXPECT_TRUE(console->flush(seconds(10)));
  reader.join();
}

TEST(StreamConsole, ReaderThatLeavesCostsOutputNotTheGuest) {
  ::signal(SIGPIPE, SIG_IGN);
  Pipe pipe;
  const auto console = stream(-1, pipe.write_end.get());
  pipe.read_end.reset();
  console->write(bytes_of("nobody"));
  EXPECT_EQ(console->stats().output_dropped, 6U);
  EXPECT_FALSE(console->stats().output_error.empty());
  EXPECT_TRUE(console->writable());
  EXPECT_TRUE(console->flush(milliseconds(0)));
}

TEST(StreamConsole, LeavesTheSharedDescriptorBlocking) {
  Pipe pipe;
  const auto console = stream(pipe.read_end.get(), pipe.write_end.get());
  EXPECT_EQ(::fcntl(pipe.write_end.get(), F_GETFL) & O_NONBLOCK, 0);
  EXPECT_EQ(::fcntl(pipe.read_end.get(), F_GETFL) & O_NONBLOCK, 0);
}

TEST(StreamConsole, PasteOfHundredKilobytesArrivesIntact) {
  Pipe pipe;
  SlowReceiver receiver;
  const auto console = stream(pipe.read_end.get(), -1);
  console->connect_input(receiver.input());
  const std::string text = test::pattern(100'000);
  std::thread writer([&] {
    std::string_view rest = text;
    while (!rest.empty()) {
      const ssize_t n = ::write(pipe.write_end.get(), rest.data(), rest.size());
      rest.remove_prefix(static_cast<std::size_t>(n));
    }
    pipe.write_end.reset();
  });
  EXPECT_TRUE(receiver.receive(text.size()));
  writer.join();
  EXPECT_EQ(receiver.received(), text);
  EXPECT_TRUE(eventually([&] { return console->stats().input_bytes == text.size(); }));
}

TEST(StreamConsole, EndOfInputDoesNotEndTheOutput) {
  Pipe in, out;
  SlowReceiver receiver;
  const auto console = stream(in.read_end.get(), out.write_end.get());
  console->connect_input(receiver.input());
  EXPECT_EQ(::write(in.write_end.get(), "x", 1), 1);
  in.write_end.reset();
  EXPECT_TRUE(receiver.receive(1));
  console->write(bytes_of("still here"));
  EXPECT_EQ(test::read_text(out.read_end.get(), 10), "still here");
}

TEST(StreamConsole, InputWaitsForTheNextMachine) {
  Pipe pipe;
  SlowReceiver first, second;
  const auto console = stream(pipe.read_end.get(), -1);
  console->connect_input(first.input());
  EXPECT_EQ(::write(pipe.write_end.get(), "one", 3), 3);
  EXPECT_TRUE(first.receive(3));
  console->disconnect_input();
  EXPECT_EQ(::write(pipe.write_end.get(), "two", 3), 3);
  console->connect_input(second.input());
  EXPECT_TRUE(second.receive(3));
  EXPECT_EQ(first.received(), "one");
  EXPECT_EQ(second.received(), "two");
}

TEST(StreamConsole, Unstarted_writesAtOnceAndKeepsTheRest) {
  Pipe in, out;
  const auto console = stream(in.read_end.get(), out.write_end.get(), {.started = false});
  ASSERT_EQ(::write(in.write_end.get(), "typed", 5), 5);
  SlowReceiver receiver;
  console->connect_input(receiver.input());
  const std::string text = test::pattern(100'000);  // the pipe holds 64 KiB
  console->write(bytes_of(text));
  EXPECT_FALSE(console->flush(milliseconds(0)));
  EXPECT_EQ(console->stats().input_bytes, 0U);
  console->start();
  console->start();  // without effect
  EXPECT_EQ(test::read_text(out.read_end.get(), text.size()), text);
  EXPECT_TRUE(eventually([&] { return console->stats().input_bytes == 5; }));
  console->disconnect_input();
}

TEST(StreamConsole, FilterSeesEverythingEvenWhenTheGuestTakesNothing) {
  Pipe pipe;
  std::atomic<std::size_t> seen{0};
  const auto console = stream(pipe.read_end.get(), -1,
                              {.input_buffer = KiB(8),
                               .input_filter =
                                   [&](std::span<const std::byte> bytes) {
                                     seen += bytes.size();
                                     return std::vector<std::byte>(bytes.begin(), bytes.end());
                                   },
                               .always_read = true});
  const std::string text = test::pattern(50'000);
  EXPECT_EQ(::write(pipe.write_end.get(), text.data(), text.size()),
            static_cast<ssize_t>(text.size()));
  EXPECT_TRUE(eventually([&] { return seen == text.size(); }));
  EXPECT_TRUE(eventually([&] { return console->stats().input_dropped == 50'000 - KiB(8); }));
}

TEST(FileConsole, IsWrittenAsItComesAndTruncatesWhatWasThere) {
  const auto path =
      std::filesystem::temp_directory_path() / ("vmm-console-" + std::to_string(::getpid()));
  std::ofstream(path) << "something old and longer";
  const auto console = ConsoleBackend::create(FileConsole{path});
  ASSERT_TRUE(console) << console.error().message();
  (*console)->write(bytes_of("new"));
  std::string text;
  std::getline(std::ifstream(path), text);
  EXPECT_EQ(text, "new");
  std::filesystem::remove(path);
}

TEST(FileConsole, IsCreatedReadableByOthers) {
  const auto path =
      std::filesystem::temp_directory_path() / ("vmm-console-mode-" + std::to_string(::getpid()));
  const mode_t mask = ::umask(0);
  const auto console = ConsoleBackend::create(FileConsole{path});
  ::umask(mask);
  ASSERT_TRUE(console) << console.error().message();
  struct stat status {};
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0644U);
  std::filesystem::remove(path);
}

TEST(FileConsole, SaysWhichFileCannotBeOpened) {
  const auto console = ConsoleBackend::create(FileConsole{"/nonexistent/dir/log"});
  ASSERT_FALSE(console);
  EXPECT_NE(console.error().message().find("/nonexistent/dir/log"), std::string::npos);
}

TEST(NullConsole, TakesEverything) {
  const auto console = ConsoleBackend::create(NullConsole{});
  ASSERT_TRUE(console);
  (*console)->write(bytes_of("gone"));
  EXPECT_TRUE((*console)->writable());
  EXPECT_EQ((*console)->stats().output_bytes, 4U);
}

}  // namespace
}  // namespace vmm
