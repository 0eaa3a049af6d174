// SPDX-License-Identifier: Apache-2.0
// O_PATH descriptors of everything: files, directories, symbolic links, named pipes, sockets, devices; open(2).
#include <sys/socket.h>
#include <sys/un.h>

#include "live.h"

static struct { const char *name; mode_t type; int flags, fd; } all[] = {
    {"file", S_IFREG, 0, -1}, {"directory", S_IFDIR, O_DIRECTORY, -1}, {"link", S_IFLNK, O_NOFOLLOW, -1},
    {"dangling", S_IFLNK, O_NOFOLLOW, -1}, {"fifo", S_IFIFO, 0, -1}, {"socket", S_IFSOCK, 0, -1}, {"/dev/null", S_IFCHR, 0, -1}};
#define COUNT (sizeof all / sizeof *all)

int main(int argc, char **argv) {
  live_init(argc, argv);
  close(open(live_path("file"), O_CREAT | O_WRONLY, 0600));
  CHECK(mkdir(live_path("directory"), 0700) == 0 && symlink("file", live_path("link")) == 0 && symlink("nowhere", live_path("dangling")) == 0 &&
        mkfifo(live_path("fifo"), 0600) == 0);
  int sock = socket(AF_UNIX, SOCK_STREAM, 0);
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  CHECK(chdir(live_path(".")) == 0);
  strcpy(address.sun_path, "socket");
  CHECK(bind(sock, (struct sockaddr *)&address, sizeof address) == 0);
  close(sock);
  for (size_t i = 0; i < COUNT; i++) {
    all[i].fd = open(all[i].name, O_PATH | O_CLOEXEC | all[i].flags);
    CHECK(all[i].fd >= 0, "%s", all[i].name);
  }
  live_ready();
  live_wait();
  for (size_t i = 0; i < COUNT; i++) {
    struct stat st, named;
    CHECK(fstat(all[i].fd, &st) == 0 && lstat(all[i].name, &named) == 0, "%s", all[i].name);
    CHECK((st.st_mode & S_IFMT) == all[i].type && st.st_ino == named.st_ino, "%s: mode %o", all[i].name, st.st_mode);
    int flags = fcntl(all[i].fd, F_GETFL);
    CHECK((flags & O_PATH) && (flags & all[i].flags) == all[i].flags, "%s: flags %o", all[i].name, flags);
    CHECK(fcntl(all[i].fd, F_GETFD) == FD_CLOEXEC);
  }
  char text[10] = "";
  CHECK(readlinkat(all[2].fd, "", text, sizeof text) == 4 && memcmp(text, "file", 4) == 0);
  live_ok();
}
