// Both directions between standard input and output and a vsock connection, in the guest:
//   vsock_cat connect PORT   to a port of the host's
//   vsock_cat listen PORT    takes one connection to a port of the guest's
// The end of the input ends the sending; the end of what is received ends the program.
#include <linux/vm_sockets.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int fail(const char* what) {
  perror(what);
  return 1;
}

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const int listens = strcmp(argv[1], "listen") == 0;
  struct sockaddr_vm address = {
      .svm_family = AF_VSOCK,
      .svm_cid = listens ? VMADDR_CID_ANY : VMADDR_CID_HOST,
      .svm_port = (unsigned)strtoul(argv[2], NULL, 10),
  };
  int fd = socket(AF_VSOCK, SOCK_STREAM, 0);
  if (fd < 0) return fail("socket");
  if (listens) {
    if (bind(fd, (struct sockaddr*)&address, sizeof address) != 0) return fail("bind");
    if (listen(fd, 1) != 0) return fail("listen");
    fprintf(stderr, "listening\n");
    fd = accept(fd, NULL, NULL);
    if (fd < 0) return fail("accept");
  } else if (connect(fd, (struct sockaddr*)&address, sizeof address) != 0) {
    return fail("connect");
  }
  struct pollfd both[2] = {{.fd = fd, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
  static char bytes[65536];
  for (;;) {
    if (poll(both, 2, -1) < 0) return fail("poll");
    if (both[1].revents != 0) {
      const ssize_t n = read(0, bytes, sizeof bytes);
      if (n < 0) return fail("read");
      if (n == 0) {
        shutdown(fd, SHUT_WR);
        both[1].fd = -1;
      }
      for (ssize_t done = 0; done < n;) {
        const ssize_t sent = send(fd, bytes + done, (size_t)(n - done), MSG_NOSIGNAL);
        if (sent < 0) return fail("send");
        done += sent;
      }
    }
    if (both[0].revents != 0) {
      const ssize_t n = recv(fd, bytes, sizeof bytes, 0);
      if (n < 0) return fail("recv");
      if (n == 0) return 0;
      if (write(1, bytes, (size_t)n) != n) return fail("write");
    }
  }
}
