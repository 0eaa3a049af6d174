// SPDX-License-Identifier: Apache-2.0
// A server that is slow to accept, and clients that ask again and again, over IPv4 and IPv6 at one socket: whenever it is
// checkpointed somebody waits to be accepted. Each connection is answered in full.
#include "inet.h"

enum { kClients = 4 };
static struct {
  volatile int stop, asked, served;
} *shared;

static void ask(int family, const struct sockaddr_in6 *server, int number) {
  struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = server->sin6_port};
  struct sockaddr_in6 v6 = *server;
  v6.sin6_addr = in6addr_loopback;
  int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0), answer = -1;
  CHECK(fd >= 0 && (family == AF_INET ? connect(fd, (void *)&v4, sizeof v4) : connect(fd, (void *)&v6, sizeof v6)) == 0);
  __atomic_add_fetch(&shared->asked, 1, __ATOMIC_SEQ_CST);
  CHECK(send(fd, &number, sizeof number, 0) == sizeof number);
  CHECK(recv(fd, &answer, sizeof answer, MSG_WAITALL) == sizeof answer && answer == -number, "asked %d, got %d", number, answer);
  CHECK(recv(fd, &answer, 1, 0) == 0);
  close(fd);
}

static void client(int which, const struct sockaddr_in6 *server) {
  for (int number = 1; !shared->stop; number++) ask(which % 2 ? AF_INET : AF_INET6, server, number);
  _exit(0);
}

static void serve(int listener) {
  int fd = accept(listener, NULL, NULL), number;
  if (fd < 0 && errno == EAGAIN) return;
  CHECK(fd >= 0 && recv(fd, &number, sizeof number, MSG_WAITALL) == sizeof number);
  number = -number;
  CHECK(send(fd, &number, sizeof number, 0) == sizeof number);
  close(fd);
  shared->served++;
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  loopback_up();
  shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(shared != MAP_FAILED);
  struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr = in6addr_any};
  socklen_t size = sizeof address;
  int listener = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0);
  set_option(listener, SOL_SOCKET, SO_REUSEADDR, 1);  // in the network of the host old connections stay for a while
  set_option(listener, IPPROTO_IPV6, IPV6_V6ONLY, 0);
  CHECK(bind(listener, (void *)&address, size) == 0 && listen(listener, 64) == 0);
  CHECK(getsockname(listener, (void *)&address, &size) == 0);
  pid_t pids[kClients];
  for (int i = 0; i < kClients; i++)
    if ((pids[i] = fork()) == 0) client(i, &address);
  while (shared->served < 2 * kClients) serve(listener);
  while (shared->asked < shared->served + 2) live_pause();
  live_ready();
  while (access(live_go_path, F_OK)) {
    live_pause();
    serve(listener);
  }
  live_wait();
  int before = shared->served;
  while (shared->served < before + 2 * kClients) serve(listener);
  shared->stop = 1;
  for (int left = kClients; left > 0;) {
    int status;
    pid_t pid = waitpid(-1, &status, WNOHANG);
    if (pid > 0) CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "client %d ended with %#x", pid, status);
    if (pid > 0) left--;
    else serve(listener);
  }
  CHECK(shared->served == shared->asked, "%d of %d", shared->served, shared->asked);
  live_ok();
}
