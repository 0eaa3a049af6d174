// SPDX-License-Identifier: Apache-2.0
// Leases for reading and writing: they are held, and who breaks one has to wait while the holder gets its signal; fcntl(2).
#include "live.h"

static volatile sig_atomic_t signals;
static void count(int signal) {
  (void)signal;
  signals++;
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  const char *read_path = live_path("read"), *write_path = live_path("write");
  close(open(read_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  struct sigaction action = {.sa_handler = count, .sa_flags = SA_RESTART};
  CHECK(sigaction(SIGIO, &action, NULL) == 0);
  int reading = open(read_path, O_RDONLY | O_CLOEXEC), writing = open(write_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  CHECK(fcntl(reading, F_SETLEASE, F_RDLCK) == 0 && fcntl(writing, F_SETLEASE, F_WRLCK) == 0);
  live_ready();
  live_wait();

  CHECK(signals == 0, "a lease was broken meanwhile");
  CHECK(fcntl(reading, F_GETLEASE) == F_RDLCK && fcntl(writing, F_GETLEASE) == F_WRLCK, "%d %d", fcntl(reading, F_GETLEASE),
        fcntl(writing, F_GETLEASE));
  close(open(read_path, O_RDONLY | O_CLOEXEC));
  CHECK(signals == 0);
  CHECK(open(read_path, O_WRONLY | O_NONBLOCK) < 0 && errno == EWOULDBLOCK && signals == 1, "%d signals", (int)signals);
  CHECK(open(write_path, O_RDONLY | O_NONBLOCK) < 0 && errno == EWOULDBLOCK && signals == 2, "%d signals", (int)signals);
  CHECK(fcntl(reading, F_SETLEASE, F_UNLCK) == 0 && fcntl(writing, F_SETLEASE, F_UNLCK) == 0);
  CHECK(open(read_path, O_WRONLY | O_NONBLOCK) >= 0);
  live_ok();
}
