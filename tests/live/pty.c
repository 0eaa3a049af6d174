// SPDX-License-Identifier: Apache-2.0
// Pseudo terminals with both ends inside, pts(4), ioctl_tty(2): settings, size, unread data both ways (raw, lines, a
// line not yet ended), packet mode, exclusive, locked, either end closed, and a session with its foreground group.
#include "live.h"
#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>

struct pair {
  int master, slave;
};
static struct pair make(int open_slave) {
  struct pair p = {posix_openpt(O_RDWR | O_NOCTTY), -1};
  CHECK(p.master >= 0 && unlockpt(p.master) == 0);
  if (open_slave) CHECK((p.slave = open(ptsname(p.master), O_RDWR | O_NOCTTY)) >= 0);
  return p;
}
static void set(int fd, int canonical, int echo, int signals) {
  struct termios t;
  CHECK(tcgetattr(fd, &t) == 0);
  cfmakeraw(&t);
  if (canonical) t.c_lflag |= ICANON, t.c_iflag |= ICRNL;
  if (echo) t.c_lflag |= ECHO;
  if (signals) t.c_lflag |= ISIG;
  t.c_cc[VINTR] = 7, t.c_cc[VMIN] = 1, t.c_cc[VTIME] = 0;
  CHECK(tcsetattr(fd, TCSANOW, &t) == 0);
}
static void says(int fd, const char *text) { CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text), "%s", text); }
static void hears(int fd, const char *text) {
  char got[256] = "";
  ssize_t n = 0, more;
  while (n < (ssize_t)strlen(text) && (more = read(fd, got + n, strlen(text) - n)) > 0) n += more;
  CHECK(strcmp(got, text) == 0, "\"%s\" instead of \"%s\"", got, text);
}
static int quiet(int fd) { return poll(&(struct pollfd){fd, POLLIN, 0}, 1, 0) == 0; }
static int hung_up(int fd) {
  struct pollfd item = {fd, 0, 0};
  return poll(&item, 1, 0) == 1 && item.revents & POLLHUP;
}
static volatile sig_atomic_t interrupted;
static void on_interrupt(int number) { interrupted = number; }

int main(int argc, char **argv) {
  live_init(argc, argv);
  struct pair raw = make(1), lines = make(1), packet = make(1), exclusive = make(1), never = make(0), widowed = make(1);
  struct pair orphan = make(1), session = make(1), locked = make(0);
  char name[64], other_name[64];
  snprintf(name, sizeof name, "%s", ptsname(raw.master));
  set(raw.slave, 0, 0, 0), set(lines.slave, 1, 0, 0), set(packet.slave, 0, 0, 0), set(session.slave, 1, 0, 1), set(widowed.slave, 0, 0, 0);
  struct winsize size = {31, 72, 5, 6}, now;
  CHECK(ioctl(raw.master, TIOCSWINSZ, &size) == 0);
  says(raw.master, "typed\001\004\r"), says(raw.slave, "said\n");
  says(lines.master, "one\rtwo\rthr"), says(lines.slave, "output\n");
  int on = 1, value;
  CHECK(ioctl(packet.master, TIOCPKT, &on) == 0);
  says(packet.slave, "packet");
  CHECK(ioctl(exclusive.slave, TIOCEXCL) == 0 && ioctl(locked.master, TIOCSPTLCK, &on) == 0);
  says(widowed.slave, "last words");
  close(widowed.slave);
  close(orphan.master);
  CHECK(hung_up(widowed.master) && hung_up(orphan.slave) && !hung_up(never.master));
  CHECK(fcntl(never.master, F_SETFL, O_NONBLOCK) == 0 && fcntl(raw.slave, F_SETFD, FD_CLOEXEC) == 0);
  int again = open(name, O_WRONLY | O_NOCTTY | O_NONBLOCK);

  struct live_gate gate = live_gate_open();
  int ordered[2];
  CHECK(pipe(ordered) == 0);
  pid_t leader = fork();
  CHECK(leader >= 0);
  if (leader == 0) {
    char byte;
    close(session.master);
    signal(SIGINT, on_interrupt);
    signal(SIGHUP, SIG_IGN);
    CHECK(setsid() == getpid() && ioctl(session.slave, TIOCSCTTY, 0) == 0);
    int current = open("/dev/tty", O_RDWR);
    if (current < 0 && errno == ENOENT) current = dup(session.slave);  // not in every root
    pid_t front = fork();
    if (front == 0) {
      CHECK(setpgid(0, 0) == 0);
      signal(SIGTTOU, SIG_IGN);
      CHECK(tcsetpgrp(session.slave, getpid()) == 0);
      live_gate_pass(gate);
      while (!interrupted) live_pause();
      says(current, "front\n");
      _exit(0);
    }
    CHECK(read(ordered[0], &byte, 1) == 1 && !interrupted, "the background got the signal");
    CHECK(current >= 0 && tcgetsid(session.slave) == getpid() && tcgetpgrp(current) == front && tcgetpgrp(session.slave) == front);
    live_reap_ok(front);
    _exit(0);
  }
  live_gate_await(gate, 1);
  live_ready();
  live_wait();

  CHECK(strcmp(ptsname(raw.master), name) == 0 && ttyname_r(raw.slave, other_name, sizeof other_name) == 0 && strcmp(name, other_name) == 0, "%s", other_name);
  struct termios t;
  CHECK(tcgetattr(raw.slave, &t) == 0 && t.c_cc[VINTR] == 7 && !(t.c_lflag & (ICANON | ECHO)) && !(t.c_oflag & OPOST));
  CHECK(tcgetattr(lines.slave, &t) == 0 && (t.c_lflag & (ICANON | ECHO)) == ICANON && t.c_iflag & ICRNL);
  CHECK(ioctl(raw.slave, TIOCGWINSZ, &now) == 0 && memcmp(&now, &size, sizeof now) == 0);
  CHECK(fcntl(raw.slave, F_GETFD) == FD_CLOEXEC && (fcntl(again, F_GETFL) & (O_ACCMODE | O_NONBLOCK)) == (O_WRONLY | O_NONBLOCK));
  CHECK(fcntl(never.master, F_GETFL) & O_NONBLOCK && !(fcntl(raw.master, F_GETFL) & O_NONBLOCK));

  hears(raw.slave, "typed\001\004\r"), hears(raw.master, "said\n");
  CHECK(quiet(raw.slave) && quiet(raw.master), "more than there was");
  says(again, "again"), hears(raw.master, "again"), says(raw.master, "x"), hears(raw.slave, "x");
  char line[64];
  CHECK(read(lines.slave, line, sizeof line) == 4 && memcmp(line, "one\n", 4) == 0, "lines");
  CHECK(read(lines.slave, line, sizeof line) == 4 && memcmp(line, "two\n", 4) == 0, "lines");
  CHECK(quiet(lines.slave), "a line that is not ended can be read");
  says(lines.master, "ee\r");
  CHECK(read(lines.slave, line, sizeof line) == 6 && memcmp(line, "three\n", 6) == 0, "lines");
  hears(lines.master, "output\n");
  CHECK(quiet(lines.master), "something was echoed");

  CHECK(ioctl(packet.master, TIOCGPKT, &value) == 0 && value == 1);
  CHECK(read(packet.master, line, sizeof line) == 7 && line[0] == TIOCPKT_DATA && memcmp(line + 1, "packet", 6) == 0);
  CHECK(ioctl(exclusive.slave, TIOCGEXCL, &value) == 0 && value == 1 && ioctl(raw.slave, TIOCGEXCL, &value) == 0 && value == 0);
  CHECK(ioctl(locked.master, TIOCGPTLCK, &value) == 0 && value == 1 && open(ptsname(locked.master), O_RDWR | O_NOCTTY) < 0);
  CHECK(ioctl(never.master, TIOCGPTLCK, &value) == 0 && value == 0 && !hung_up(never.master) && read(never.master, line, 1) < 0 && errno == EAGAIN);
  CHECK(hung_up(widowed.master));
  hears(widowed.master, "last words");
  CHECK(read(widowed.master, line, 1) < 0 && errno == EIO);
  CHECK(hung_up(orphan.slave) && read(orphan.slave, line, 1) == 0 && write(orphan.slave, "x", 1) < 0 && errno == EIO);
  never.slave = open(ptsname(never.master), O_RDWR | O_NOCTTY);
  CHECK(never.slave >= 0);
  says(never.slave, "late"), hears(never.master, "late");

  CHECK(write(ordered[1], "x", 1) == 1);
  says(session.master, "\007");  // VINTR
  hears(session.master, "front\n");
  live_reap_ok(leader);
  live_ok();
}
