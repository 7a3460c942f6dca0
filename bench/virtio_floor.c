// What a virtio device's work costs without a guest: the floor for bench/virtio.py.
//
//   virtio_floor disk FILE (read|write|durable) BYTES DEPTH COUNT (random|sequential) PLACES
//                (buffered|direct)
//   virtio_floor pingpong COUNT
//   virtio_floor tap NAME BYTES COUNT FRAME
//   virtio_floor receive NAME BYTES COUNT
//   virtio_floor feed NAME BYTES COUNT FRAME PROGRAM [ARGUMENT...]
//
// disk: io_uring, DEPTH requests under way, at places that follow from the same random numbers as
// the guest's; a durable one is a write that ends when it is on the medium (RWF_DSYNC). pingpong:
// two threads wake each other by eventfds. tap: one write(2) a frame, of which FRAME has the first
// bytes, virtio_net_hdr included, in hexadecimal. receive: one read(2) a frame of at most BYTES,
// into one of 256 buffers after the other, after 'r' and a byte on stdin. Each prints 'a' after a
// sixteenth of COUNT to warm up, and 'b' after COUNT more. feed: runs PROGRAM, whose output it
// passes on; after 'r' it puts COUNT frames into the tap's queue, where they wait, and then a byte
// on PROGRAM's stdin: what is measured then is taking them, on a host whose processors have nothing
// else to do.
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static void die(const char* what) {
  fprintf(stderr, "virtio_floor: %s: %s\n", what, strerror(errno));
  exit(1);
}

static void say(char letter) {
  if (write(1, &letter, 1) != 1) die("write");
}

static uint64_t number(const char* text) { return strtoull(text, NULL, 0); }

// As the guests' memory, and there.
static char* huge_memory(size_t bytes) {
  void* memory;
  if (posix_memalign(&memory, 2 << 20, bytes)) die("memory");
  madvise(memory, bytes, MADV_HUGEPAGE);
  return memset(memory, 0, bytes);
}

// --- disk

struct disk {
  struct io_uring ring;
  int fd, write, durable, sequential;
  unsigned bytes;
  uint64_t places, next, random;
  char* buffers;
};

static void begin(struct disk* d, uint64_t slot) {
  uint64_t place = d->next++;
  if (!d->sequential) {
    d->random ^= d->random << 13;
    d->random ^= d->random >> 7;
    d->random ^= d->random << 17;
    place = d->random;
  }
  const uint64_t offset = (place & (d->places - 1)) * d->bytes;
  char* const buffer = d->buffers + slot * d->bytes;
  struct io_uring_sqe* const entry = io_uring_get_sqe(&d->ring);
  if (d->write) {
    io_uring_prep_write(entry, d->fd, buffer, d->bytes, offset);
    if (d->durable) entry->rw_flags = RWF_DSYNC;
  } else {
    io_uring_prep_read(entry, d->fd, buffer, d->bytes, offset);
  }
  io_uring_sqe_set_data64(entry, slot);
}

static void run_disk(struct disk* d, uint64_t depth, uint64_t count) {
  uint64_t begun = 0, ended = 0;
  for (; begun < depth && begun < count; begun++) begin(d, begun);
  while (ended < count) {
    if (io_uring_submit_and_wait(&d->ring, 1) < 0) die("io_uring_submit_and_wait");
    struct io_uring_cqe* entry;
    while (io_uring_peek_cqe(&d->ring, &entry) == 0) {
      if (entry->res != (int)d->bytes) {
        errno = entry->res < 0 ? -entry->res : EIO;
        die("a request");
      }
      const uint64_t slot = io_uring_cqe_get_data64(entry);
      io_uring_cqe_seen(&d->ring, entry);
      ended++;
      if (begun < count) {
        begin(d, slot);
        begun++;
      }
    }
  }
}

static int disk(char** argument) {
  struct disk d = {.random = 0x9e3779b97f4a7c15u};
  d.durable = !strcmp(argument[1], "durable");
  d.write = d.durable || !strcmp(argument[1], "write");
  d.bytes = (unsigned)number(argument[2]);
  const uint64_t depth = number(argument[3]), count = number(argument[4]);
  d.sequential = !strcmp(argument[5], "sequential");
  d.places = number(argument[6]);
  d.fd = open(argument[0], O_RDWR | O_CLOEXEC | (strcmp(argument[7], "direct") ? 0 : O_DIRECT));
  if (d.fd < 0) die(argument[0]);
  d.buffers = huge_memory(depth * d.bytes);
  const int error = io_uring_queue_init(256, &d.ring, 0);
  if (error < 0) {
    errno = -error;
    die("io_uring_queue_init");
  }
  run_disk(&d, depth, count / 16 + depth);
  say('a');
  run_disk(&d, depth, count);
  say('b');
  return 0;
}

// --- pingpong

static int there, back;

static void pass(int to) {
  const uint64_t one = 1;
  if (write(to, &one, sizeof one) != sizeof one) die("write to an eventfd");
}

static void await(int from) {
  uint64_t value;
  if (read(from, &value, sizeof value) != sizeof value) die("read from an eventfd");
}

static void* answer(void* unused) {
  (void)unused;
  for (;;) {
    await(there);
    pass(back);
  }
  return NULL;
}

static int pingpong(char** argument) {
  const uint64_t count = number(argument[0]);
  there = eventfd(0, 0);
  back = eventfd(0, 0);
  pthread_t thread;
  if (there < 0 || back < 0 || pthread_create(&thread, NULL, answer, NULL)) die("set up");
  for (uint64_t i = 0; i < count / 16 + count; i++) {
    if (i == count / 16) say('a');
    pass(there);
    await(back);
  }
  say('b');
  return 0;  // the other thread ends with the process
}

// --- tap

enum {
  kMostFrame = 65536 + 128,
  kNetHeader = 12,
  kPacketHeader = 10,
  kBuffers = 256,  // as the guest has
  kBufferDistance = 128 << 10,
};

static char frame[kMostFrame];

static size_t make_frame(const char* bytes, const char* first) {
  for (size_t i = 0; first[2 * i] != '\0' && i < 128; i++) {
    unsigned byte;
    if (sscanf(first + 2 * i, "%2x", &byte) != 1) die("FRAME");
    frame[i] = (char)byte;
  }
  return number(bytes);
}

static int open_tap(const char* name) {
  const int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
  if (fd < 0) die("/dev/net/tun");
  struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
  strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  int header = kNetHeader;
  if (ioctl(fd, TUNSETIFF, &request) || ioctl(fd, TUNSETVNETHDRSZ, &header)) die(name);
  if (ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4)) die("TUNSETOFFLOAD");
  return fd;
}

static int tap(char** argument) {
  const size_t bytes = make_frame(argument[1], argument[3]);
  const uint64_t count = number(argument[2]);
  const int fd = open_tap(argument[0]);
  for (uint64_t i = 0; i < count / 16 + count; i++) {
    if (i == count / 16) say('a');
    if (write(fd, frame, bytes) != (ssize_t)bytes) die("write to the tap");
  }
  say('b');
  return 0;
}

static int receive(char** argument) {
  const size_t bytes = number(argument[1]);
  const uint64_t count = number(argument[2]);
  const int fd = open_tap(argument[0]);
  char* const buffers = huge_memory(kBuffers * kBufferDistance);
  char byte;
  say('r');
  if (bytes > kBufferDistance || read(0, &byte, 1) != 1) die("receive");
  for (uint64_t i = 0; i < count / 16 + count; i++) {
    if (i == count / 16) say('a');
    if (read(fd, buffers + i % kBuffers * kBufferDistance, bytes) <= 0) die("read from the tap");
  }
  say('b');
  return 0;
}

// --- feed

// Straight into the driver's queue, whose length the tap's maker has seen to: a frame for which
// there is no room is an error.
static void fill(const char* name, size_t bytes, uint64_t count) {
  const int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
  const int yes = 1;
  const struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(name)};
  if (fd < 0 || bind(fd, (const struct sockaddr*)&to, sizeof to)) die("a packet socket");
  if (setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &yes, sizeof yes) ||
      setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &yes, sizeof yes)) {
    die("the packet socket's options");
  }
  const struct iovec parts[] = {{frame, kPacketHeader},  // without the number of buffers
                                {frame + kNetHeader, bytes - kNetHeader}};
  for (uint64_t i = 0; i < count; i++) {
    if (writev(fd, parts, 2) < 0) die("a frame to the tap's queue");
  }
  close(fd);
}

static int feed(char** argument) {
  const size_t bytes = make_frame(argument[1], argument[3]);
  int in[2], out[2];
  if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC)) die("pipe");
  const pid_t child = fork();
  if (child < 0) die("fork");
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(in[0], 0);
    dup2(out[1], 1);
    execvp(argument[4], argument + 4);
    die(argument[4]);
  }
  close(in[0]);
  close(out[1]);
  char letter;
  while (read(out[0], &letter, 1) == 1) {
    say(letter);
    if (letter != 'r') continue;
    fill(argument[0], bytes, number(argument[2]));
    if (write(in[1], &letter, 1) != 1) die("write to the program");
  }
  int status;
  if (waitpid(child, &status, 0) < 0) die("waitpid");
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int main(int argc, char** argv) {
  if (argc == 10 && !strcmp(argv[1], "disk")) return disk(argv + 2);
  if (argc == 3 && !strcmp(argv[1], "pingpong")) return pingpong(argv + 2);
  if (argc == 6 && !strcmp(argv[1], "tap")) return tap(argv + 2);
  if (argc == 5 && !strcmp(argv[1], "receive")) return receive(argv + 2);
  if (argc >= 7 && !strcmp(argv[1], "feed")) return feed(argv + 2);
  fprintf(stderr, "virtio_floor: see the comment at the top of bench/virtio_floor.c\n");
  return 1;
}
