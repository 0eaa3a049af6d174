// SPDX-License-Identifier: Apache-2.0
// A private ipc namespace: its sysctls, and that it is not the host's; ipc_namespaces(7), proc(5).
#include "live.h"

static const struct { const char *path, *value; } kSysctls[] = {
    {"/proc/sys/kernel/msgmax", "4321\n"},      {"/proc/sys/kernel/msgmnb", "54321\n"},  {"/proc/sys/kernel/msgmni", "321\n"},
    {"/proc/sys/kernel/shmmni", "1234\n"},      {"/proc/sys/kernel/shmall", "98765\n"},  {"/proc/sys/kernel/shmmax", "7654321\n"},
    {"/proc/sys/fs/mqueue/queues_max", "111\n"}, {"/proc/sys/fs/mqueue/msg_max", "9\n"}, {"/proc/sys/kernel/sem", "250\t31000\t30\t111\n"}};
enum { kCount = sizeof kSysctls / sizeof *kSysctls };

int main(int argc, char **argv) {
  live_init(argc, argv);
  for (int i = 0; i < kCount; i++) {
    int fd = open(kSysctls[i].path, O_WRONLY | O_CLOEXEC);
    CHECK(fd >= 0, "%s", kSysctls[i].path);
    CHECK(write(fd, kSysctls[i].value, strlen(kSysctls[i].value)) > 0, "%s", kSysctls[i].path);
    close(fd);
  }
  live_ready();
  live_wait();
  char now[256];
  for (int i = 0; i < kCount; i++) {
    live_read_file(kSysctls[i].path, now, sizeof now);
    CHECK(strcmp(now, kSysctls[i].value) == 0, "%s is %s", kSysctls[i].path, now);
  }
  live_ok();
}
