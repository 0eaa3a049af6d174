// SPDX-License-Identifier: Apache-2.0
// A terminal whose other end the client holds, as standard input and controlling terminal; pts(4), ioctl_tty(2).
// After the restore it is another one that the client gives: settings, session and both ways of data.
#include "live.h"
#include <sys/ioctl.h>
#include <termios.h>

int main(int argc, char **argv) {
  live_init(argc, argv);
  CHECK(getsid(0) == getpid() && ioctl(0, TIOCSCTTY, 0) == 0, "standard input is no terminal of ours");
  struct winsize size = {.ws_row = 31, .ws_col = 72}, size_now;
  CHECK(ioctl(0, TIOCSWINSZ, &size) == 0);
  struct termios settings, settings_now;
  CHECK(tcgetattr(0, &settings) == 0);
  settings.c_lflag &= ~ECHO;
  settings.c_cc[VINTR] = 7;
  CHECK(tcsetattr(0, TCSANOW, &settings) == 0);
  int copy = dup(0), other = open(ttyname(0), O_WRONLY | O_NONBLOCK | O_NOCTTY), current = open("/dev/tty", O_RDWR);
  CHECK(copy >= 0 && other >= 0 && current >= 0);
  live_ready();
  live_wait();

  CHECK(ioctl(0, TIOCGWINSZ, &size_now) == 0 && size_now.ws_row == 31 && size_now.ws_col == 72, "the size is lost");
  CHECK(tcgetattr(copy, &settings_now) == 0 && settings_now.c_lflag == settings.c_lflag && settings_now.c_cc[VINTR] == 7,
        "the settings are lost");
  CHECK(tcgetsid(0) == getpid() && tcgetpgrp(0) == getpid(), "it does not control the session");
  CHECK((fcntl(other, F_GETFL) & (O_ACCMODE | O_NONBLOCK)) == (O_WRONLY | O_NONBLOCK), "flags of another description");
  CHECK(!(fcntl(0, F_GETFL) & O_NONBLOCK) && (fcntl(0, F_GETFL) & O_ACCMODE) == O_RDWR, "flags of standard input");
  char line[16] = "";
  CHECK(read(0, line, sizeof line) == 3 && strcmp(line, "in\n") == 0, "read \"%s\"", line);
  CHECK(write(copy, "one", 3) == 3 && write(other, "two", 3) == 3 && write(current, "three", 5) == 5);
  live_ok();
}
