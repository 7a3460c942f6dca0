// What a virtio device's work costs without a guest: the floor for bench/virtio.py.
//
//   virtio_floor disk FILE (read|write|durable) BYTES DEPTH COUNT (random|sequential) PLACES
//                (buffered|direct)
//   virtio_floor pingpong COUNT
//   virtio_floor tap NAME BYTES COUNT FRAME
//
// disk: io_uring, DEPTH requests under way, at places that follow from the same random numbers as
// the guest's; a durable one is a write that ends when it is on the medium (RWF_DSYNC). pingpong:
// two threads wake each other by eventfds. tap: one write(2) a frame, of which FRAME has the first
// bytes, virtio_net_hdr included, in hexadecimal. Each prints 'a' after a sixteenth of COUNT to
// warm up, and 'b' after COUNT more.
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

static void die(const char* what) {
  fprintf(stderr, "virtio_floor: %s: %s\n", what, strerror(errno));
  exit(1);
}

static void say(char letter) {
  if (write(1, &letter, 1) != 1) die("write");
}

static uint64_t number(const char* text) { return strtoull(text, NULL, 0); }

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
  if (posix_memalign((void**)&d.buffers, 2 << 20, depth * d.bytes)) die("memory");
  madvise(d.buffers, depth * d.bytes, MADV_HUGEPAGE);  // as the guests' memory
  memset(d.buffers, 0, depth * d.bytes);
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

static int tap(char** argument) {
  static char frame[65536 + 128];
  const size_t bytes = number(argument[1]);
  const uint64_t count = number(argument[2]);
  for (size_t i = 0; argument[3][2 * i] != '\0' && i < 128; i++) {
    unsigned byte;
    if (sscanf(argument[3] + 2 * i, "%2x", &byte) != 1) die("FRAME");
    frame[i] = (char)byte;
  }
  const int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
  if (fd < 0) die("/dev/net/tun");
  struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
  strncpy(request.ifr_name, argument[0], IFNAMSIZ - 1);
  int header = 12;
  if (ioctl(fd, TUNSETIFF, &request) || ioctl(fd, TUNSETVNETHDRSZ, &header)) die(argument[0]);
  if (ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4)) die("TUNSETOFFLOAD");
  for (uint64_t i = 0; i < count / 16 + count; i++) {
    if (i == count / 16) say('a');
    if (write(fd, frame, bytes) != (ssize_t)bytes) die("write to the tap");
  }
  say('b');
  return 0;
}

int main(int argc, char** argv) {
  if (argc == 10 && !strcmp(argv[1], "disk")) return disk(argv + 2);
  if (argc == 3 && !strcmp(argv[1], "pingpong")) return pingpong(argv + 2);
  if (argc == 6 && !strcmp(argv[1], "tap")) return tap(argv + 2);
  fprintf(stderr, "virtio_floor: see the comment at the top of bench/virtio_floor.c\n");
  return 1;
}
