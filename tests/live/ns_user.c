// SPDX-License-Identifier: Apache-2.0
// Root of a user namespace: the ids it has, what belongs to it, and what it may do, stay; a child of another user too.
#include "live.h"
#include <linux/nsfs.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <grp.h>

static const char *const kFiles[] = {"/proc/self/uid_map", "/proc/self/gid_map", "/proc/self/setgroups"};
static const char *const kNamespaces[] = {"mnt", "pid", "uts", "ipc", "net"};
static char before[3][4096];

static ino_t owner_of(const char *kind) {
  char path[64];
  snprintf(path, sizeof path, "/proc/self/ns/%s", kind);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  CHECK(fd >= 0, "%s", path);
  int owner = ioctl(fd, NS_GET_USERNS);
  struct stat st;
  CHECK(owner >= 0 && fstat(owner, &st) == 0, "%s", path);
  close(fd), close(owner);
  return st.st_ino;
}
static void all_namespaces_are_ours(void) {
  struct stat own;
  CHECK(stat("/proc/self/ns/user", &own) == 0);
  for (size_t i = 0; i < sizeof kNamespaces / sizeof *kNamespaces; i++)
    CHECK(owner_of(kNamespaces[i]) == own.st_ino, "the %s namespace belongs to another user namespace", kNamespaces[i]);
}
static void ids_are(uid_t uid, gid_t gid, gid_t group) {
  uid_t r, e, s;
  gid_t rg, eg, sg, groups[4] = {};
  CHECK(getresuid(&r, &e, &s) == 0 && r == uid && e == uid && s == uid, "uids %u %u %u", r, e, s);
  CHECK(getresgid(&rg, &eg, &sg) == 0 && rg == gid && eg == gid && sg == gid, "gids %u %u %u", rg, eg, sg);
  CHECK(getgroups(4, groups) == 1 && groups[0] == group, "group %u", groups[0]);
}
static void owned_by(const char *path, uid_t uid, gid_t gid) {
  struct stat st;
  CHECK(stat(path, &st) == 0 && st.st_uid == uid && st.st_gid == gid, "%s: %u:%u", path, st.st_uid, st.st_gid);
}
static void make(const char *path, uid_t uid, gid_t gid) {
  int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  CHECK(fd >= 0 && fchown(fd, uid, gid) == 0 && close(fd) == 0, "%s", path);
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  const char *disk = live_path("on-disk"), *memory = "/tmp/in-memory";
  CHECK(mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID, "size=1m,uid=11,gid=12,mode=1777") == 0);
  make(disk, 65535, 70000);
  make(memory, 33, 34);
  gid_t group = 70000, other_group = 44;
  CHECK(setgroups(1, &group) == 0);
  for (int i = 0; i < 3; i++) live_read_file(kFiles[i], before[i], sizeof before[i]);
  CHECK(strlen(before[0]) > 20 && strcmp(before[0], before[1]), "meant to run with maps of its own");
  all_namespaces_are_ours();
  struct live_gate gate = live_gate_open();
  pid_t child = fork();
  if (child == 0) {
    CHECK(setgroups(1, &other_group) == 0 && setresgid(1000, 1000, 1000) == 0 && setresuid(65535, 65535, 65535) == 0);
    live_gate_pass(gate);
    live_wait();
    ids_are(65535, 1000, 44);
    CHECK(access(memory, R_OK) < 0 && errno == EACCES && access(disk, R_OK) == 0);
    CHECK(setuid(0) < 0 && errno == EPERM, "may become root");
    _exit(0);
  }
  live_gate_await(gate, 1);
  live_ready();
  live_wait();
  char now[4096];
  for (int i = 0; i < 3; i++)
    CHECK(strcmp(live_read_file(kFiles[i], now, sizeof now), before[i]) == 0, "%s: %s", kFiles[i], now);
  ids_are(0, 0, 70000);
  all_namespaces_are_ours();
  owned_by("/proc/self/status", 0, 0);
  owned_by("/tmp", 11, 12);
  owned_by(memory, 33, 34);
  owned_by(disk, 65535, 70000);
  CHECK(sethostname("inside", 6) == 0 && mount("tmpfs", "/tmp", "tmpfs", 0, NULL) == 0 && umount("/tmp") == 0);
  CHECK(mknod("/tmp/null", S_IFCHR | 0666, 0x103) < 0 && errno == EPERM, "has rights outside of its user namespace");
  live_reap_ok(child);
  live_ok();
}
