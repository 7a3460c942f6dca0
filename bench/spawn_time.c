// Runs a program and says when its output came and what the run cost: one line of JSON on stdout.
//
//   spawn_time [--timeout-ms N] [--cpu N] -- PROGRAM [ARGUMENT...]
//
// {"bytes": [["!", 861234], ...],    the first 64 bytes of its stdout, each with the nanoseconds
//                                    from just before the spawn to its arrival here
//  "total_ns": 871234,               until the program had gone
//  "user_us": 310, "sys_us": 560,    its CPU time (wait4)
//  "status": 0}                      exit status; 128 + signal; -1: it took too long and was killed
//
// In C because forking an interpreter costs as much as what is measured. The program's stdin is
// /dev/null, its stderr is ours.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char** environ;

enum { kMaxBytes = 64 };

static long long now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void die(const char* what, int error) {
  fprintf(stderr, "spawn_time: %s: %s\n", what, strerror(error));
  exit(125);
}

static void print_byte(unsigned char byte, long long ns, int first) {
  if (byte >= 0x20 && byte < 0x7f && byte != '"' && byte != '\\') {
    printf("%s[\"%c\", %lld]", first ? "" : ", ", byte, ns);
  } else {
    printf("%s[\"\\u%04x\", %lld]", first ? "" : ", ", byte, ns);
  }
}

int main(int argc, char** argv) {
  long timeout_ms = 60000;
  int at = 1;
  for (; at < argc && strcmp(argv[at], "--") != 0; at++) {
    if (!strcmp(argv[at], "--timeout-ms") && at + 1 < argc) {
      timeout_ms = strtol(argv[++at], NULL, 10);
    } else if (!strcmp(argv[at], "--cpu") && at + 1 < argc) {
      cpu_set_t set;  // inherited by the program
      CPU_ZERO(&set);
      CPU_SET(strtoul(argv[++at], NULL, 10), &set);
      if (sched_setaffinity(0, sizeof set, &set)) die("sched_setaffinity", errno);
    } else {
      break;
    }
  }
  if (at + 1 >= argc || strcmp(argv[at], "--") != 0) {
    fprintf(stderr, "usage: spawn_time [--timeout-ms N] [--cpu N] -- PROGRAM [ARGUMENT...]\n");
    return 125;
  }
  char** command = argv + at + 1;

  int out[2];
  if (pipe2(out, O_CLOEXEC)) die("pipe", errno);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, out[1], 1);

  unsigned char bytes[kMaxBytes];
  long long when[kMaxBytes];
  int count = 0, killed = 0;
  pid_t child;
  const long long start = now_ns();
  const int error = posix_spawnp(&child, command[0], &actions, NULL, command, environ);
  if (error) die(command[0], error);
  close(out[1]);
  for (;;) {
    const long long left_ms = timeout_ms - (now_ns() - start) / 1000000;
    struct pollfd wait = {.fd = out[0], .events = POLLIN};
    const int ready = left_ms > 0 ? poll(&wait, 1, (int)left_ms) : 0;
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) {
      kill(child, SIGKILL);
      killed = 1;
      break;
    }
    unsigned char chunk[4096];
    const ssize_t got = read(out[0], chunk, sizeof chunk);
    const long long arrived = now_ns() - start;
    if (got <= 0) break;
    for (ssize_t i = 0; i < got && count < kMaxBytes; i++) {
      bytes[count] = chunk[i];
      when[count++] = arrived;
    }
  }
  int status;
  struct rusage usage;
  if (wait4(child, &status, 0, &usage) < 0) die("wait4", errno);
  const long long total = now_ns() - start;

  printf("{\"bytes\": [");
  for (int i = 0; i < count; i++) print_byte(bytes[i], when[i], i == 0);
  const int code = killed ? -1 : WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  printf("], \"total_ns\": %lld, \"user_us\": %lld, \"sys_us\": %lld, \"status\": %d}\n", total,
         usage.ru_utime.tv_sec * 1000000LL + usage.ru_utime.tv_usec,
         usage.ru_stime.tv_sec * 1000000LL + usage.ru_stime.tv_usec, code);
  return 0;
}
