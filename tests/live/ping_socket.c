// SPDX-License-Identifier: Apache-2.0
// Sockets for pings, icmp(7), which a setting of the network has to allow: IPv4 and IPv6, bound and connected, as a raw one is. With
// them other settings of the namespace that no device has.
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>

#include "inet.h"

static const struct {
  const char *name, *value;
} kSettings[] = {{"ipv4/ping_group_range", "0 100"}, {"ipv4/ip_unprivileged_port_start", "80"}, {"ipv4/tcp_keepalive_time", "1234"},
                 {"ipv4/ip_local_port_range", "20000 29999"}, {"ipv4/tcp_rmem", "4096 70000 500000"}};
enum { kSettingsCount = sizeof kSettings / sizeof *kSettings };

static const char *path_of(int i) {
  static char path[128];
  snprintf(path, sizeof path, "/proc/sys/net/%s", kSettings[i].name);
  return path;
}
static void ping(int fd, int family, int number) {
  struct icmphdr echo = {.type = family == AF_INET ? ICMP_ECHO : ICMP6_ECHO_REQUEST, .un.echo.sequence = htons(number)};
  struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
  CHECK((family == AF_INET ? sendto(fd, &echo, sizeof echo, 0, (void *)&v4, sizeof v4) : sendto(fd, &echo, sizeof echo, 0, (void *)&v6, sizeof v6)) == sizeof echo);
  struct icmphdr answer;
  CHECK(recv(fd, &answer, sizeof answer, 0) == sizeof answer && answer.type == (family == AF_INET ? ICMP_ECHOREPLY : ICMP6_ECHO_REPLY));
  CHECK(ntohs(answer.un.echo.sequence) == number && ntohs(answer.un.echo.id) == port_of(fd), "another's answer");
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  if (getpid() != 1) _exit(77);  // the settings of the host are not ours
  loopback_up();
  for (int i = 0; i < kSettingsCount; i++) {
    int fd = open(path_of(i), O_WRONLY | O_CLOEXEC);
    CHECK(fd >= 0 && write(fd, kSettings[i].value, strlen(kSettings[i].value)) > 0, "%s", path_of(i));
    close(fd);
  }
  struct sockaddr_in id = {.sin_family = AF_INET, .sin_port = htons(4242)}, peer = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int fd = socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP), connected = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, IPPROTO_ICMP), fd6 = socket(AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6);
  int raw = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
  CHECK(fd >= 0 && connected >= 0 && fd6 >= 0 && raw >= 0 && connect(raw, (void *)&peer, sizeof peer) == 0);
  CHECK(bind(fd, (void *)&id, sizeof id) == 0 && connect(connected, (void *)&peer, sizeof peer) == 0);
  set_option(fd, IPPROTO_IP, IP_TTL, 7);
  ping(fd6, AF_INET6, 1);
  struct socket_state state, state_connected, state6, state_raw;
  remember(&state, fd), remember(&state_connected, connected), remember(&state6, fd6), remember(&state_raw, raw);

  live_ready();
  live_wait();

  check_same(&state, "bound"), check_same(&state_connected, "connected"), check_same(&state6, "IPv6"), check_same(&state_raw, "raw");
  CHECK(port_of(fd) == 4242);
  ping(fd, AF_INET, 2), ping(fd6, AF_INET6, 3);
  for (int i = 0; i < kSettingsCount; i++) {
    char text[256];
    live_read_file(path_of(i), text, sizeof text);
    for (char *c = text; *c; c++) *c = *c == '\t' ? ' ' : *c == '\n' ? 0 : *c;
    CHECK(!strcmp(text, kSettings[i].value), "%s is \"%s\"", path_of(i), text);
  }
  live_ok();
}
