// SPDX-License-Identifier: Apache-2.0
// Pipes in packet mode: each read gets one packet, also where ordinary bytes are among them; what splice(2) and
// vmsplice(2) left in a pipe; pipe(2).
#include <sys/uio.h>

#include "live.h"

static void put(int fd, const char *text) { CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text)); }
static void get(int fd, const char *text) {
  char buffer[5000];
  ssize_t n = read(fd, buffer, sizeof buffer);
  CHECK(n == (ssize_t)strlen(text) && memcmp(buffer, text, n) == 0, "%zd bytes instead of \"%s\"", n, text);
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  static char page[4096] __attribute__((aligned(4096))), big[4097];
  int packets[2], mixed[2], plain[2], spliced[2], from[2];
  CHECK(pipe2(packets, O_DIRECT) == 0 && pipe2(mixed, O_DIRECT) == 0 && pipe2(plain, O_DIRECT) == 0 && pipe(spliced) == 0 && pipe(from) == 0);
  put(packets[1], "first");
  put(packets[1], "2");
  put(packets[1], "3");
  memset(big, 'b', 4096);
  put(packets[1], big);
  put(packets[1], "last");
  put(mixed[1], "packet");
  CHECK(fcntl(mixed[1], F_SETFL, 0) == 0);
  put(mixed[1], "ordinary, ");
  put(mixed[1], "ordinary");
  CHECK(fcntl(plain[1], F_SETFL, 0) == 0);
  put(plain[1], "no ");
  put(plain[1], "packets");
  memset(page, 'v', sizeof page);
  put(from[1], "0123456789");
  CHECK(splice(from[0], NULL, spliced[1], NULL, 4, 0) == 4);
  struct iovec whole = {page, sizeof page};
  CHECK(vmsplice(spliced[1], &whole, 1, 0) == 4096);
  put(spliced[1], "tail");
  live_ready();
  live_wait();

  CHECK((fcntl(packets[1], F_GETFL) & O_DIRECT) && !(fcntl(mixed[1], F_GETFL) & O_DIRECT));
  put(packets[1], "new");
  get(packets[0], "first");
  get(packets[0], "2");
  get(packets[0], "3");
  get(packets[0], big);
  char two[2];
  CHECK(read(packets[0], two, 2) == 2 && memcmp(two, "la", 2) == 0);
  get(packets[0], "new");  // the rest of a packet is dropped
  get(mixed[0], "packet");
  get(mixed[0], "ordinary, ordinary");
  get(plain[0], "no packets");
  get(from[0], "456789");
  char text[5000];
  CHECK(read(spliced[0], text, sizeof text) == 4104 && memcmp(text, "0123v", 5) == 0 && memcmp(text + 4099, "vtail", 5) == 0);
  live_ok();
}
