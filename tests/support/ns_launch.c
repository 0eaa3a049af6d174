// SPDX-License-Identifier: Apache-2.0
// ns_launch ROOT [user|few] [time] [cgroup] -- PROGRAM ARGS...: starts PROGRAM as pid 1 of new pid, mount, uts, ipc and net (and user,
// time, cgroup) namespaces with ROOT as its root, much as a container runtime does, prints its pid and exits. With `user` the ids
// 0 to 65535 inside are users from 100000 and groups from 200000 on outside, and 70000 is 300000. With `few`
// there are ten ids, root is not among them, and setgroups(2) is denied: PROGRAM is user and group 5, and in group 7,
// and its user namespace belongs to user 4242.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/types.h>
#include <unistd.h>

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif

static void need(int ok, const char *what) {
  if (ok) return;
  perror(what);
  _exit(1);
}
static void node(const char *path, unsigned major_number, unsigned minor_number) {
  need(mknod(path, S_IFCHR | 0666, makedev(major_number, minor_number)) == 0 && chmod(path, 0666) == 0, path);
}

static void bind_node(const char *name) {  // nobody makes device nodes in a user namespace
  char from[64];
  snprintf(from, sizeof from, "/%s", name);
  int fd = open(name, O_CREAT | O_WRONLY, 0666);
  need(fd >= 0 && close(fd) == 0 && mount(from, name, NULL, MS_BIND, NULL) == 0, name);
}
static void write_map(pid_t pid, const char *file, const char *map) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/%s", pid, file);
  int fd = open(path, O_WRONLY);
  need(fd >= 0 && write(fd, map, strlen(map)) == (ssize_t)strlen(map) && close(fd) == 0, path);
}

static void enter_time(void) {
  need(unshare(CLONE_NEWTIME) == 0, "unshare time");
  int offsets = open("/proc/self/timens_offsets", O_WRONLY), space = open("/proc/self/ns/time_for_children", O_RDONLY);
  static const char kOffsets[] = "monotonic 1000000 5\nboottime 2000000 999999999\n";
  need(offsets >= 0 && write(offsets, kOffsets, sizeof kOffsets - 1) == sizeof kOffsets - 1 && close(offsets) == 0, "offsets");
  need(space >= 0 && setns(space, CLONE_NEWTIME) == 0 && close(space) == 0, "setns time");
}

static void map_ids(pid_t pid, int few) {
  if (few) write_map(pid, "setgroups", "deny");
  write_map(pid, "gid_map", few ? "5 200005 10\n" : "0 200000 65536\n70000 300000 1\n");
  write_map(pid, "uid_map", few ? "5 100005 10\n" : "0 100000 65536\n70000 300000 1\n");
}

static void build_root(const char *root, int user) {
  need(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0, "private");
  need(mount(root, root, NULL, MS_BIND | MS_REC, NULL) == 0, "bind root");
  need(chdir(root) == 0, root);
  static const char *const kDirectories[] = {"proc", "dev", "sys", "tmp", "run"};
  for (size_t i = 0; i < sizeof kDirectories / sizeof *kDirectories; i++) mkdir(kDirectories[i], 0755);
  need(mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) == 0, "proc");
  need(mount("tmpfs", "dev", "tmpfs", MS_NOSUID, "mode=755,size=64k") == 0, "dev");
  if (user)
    bind_node("dev/null"), bind_node("dev/zero"), bind_node("dev/full"), bind_node("dev/random"), bind_node("dev/urandom");
  else
    node("dev/null", 1, 3), node("dev/zero", 1, 5), node("dev/full", 1, 7), node("dev/random", 1, 8), node("dev/urandom", 1, 9);
  need(mkdir("dev/pts", 0755) == 0 && mkdir("dev/mqueue", 0755) == 0 && mkdir("dev/shm", 01777) == 0, "dev/*");
  need(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620") == 0, "devpts");
  need(symlink("pts/ptmx", "dev/ptmx") == 0, "ptmx");
  need(mount("mqueue", "dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) == 0, "mqueue");
  need(mount("sysfs", "sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, NULL) == 0, "sysfs");
  need(syscall(SYS_pivot_root, ".", ".") == 0, "pivot_root");
  need(umount2(".", MNT_DETACH) == 0 && chdir("/") == 0, "old root");
}

int main(int argc, char **argv) {
  int at = 2, flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET;
  int few = argc > at && strcmp(argv[at], "few") == 0, mapped[2];
  int user = few || (argc > at && strcmp(argv[at], "user") == 0);
  gid_t birth_group = 200007;
  if (user) flags |= CLONE_NEWUSER, at++;
  int own_time = argc > at && strcmp(argv[at], "time") == 0;
  at += own_time;
  if (argc > at && strcmp(argv[at], "cgroup") == 0) flags |= CLONE_NEWCGROUP, at++;
  if (argc <= at + 1 || strcmp(argv[at], "--")) return fprintf(stderr, "usage: ns_launch ROOT [user|few] [time] [cgroup] -- PROGRAM...\n"), 2;
  need(pipe(mapped) == 0 && (!few || setgroups(1, &birth_group) == 0), "pipe");
  need(!few || seteuid(4242) == 0, "seteuid");  // whoever makes it owns it
  long pid = syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
  need(pid >= 0, "clone");
  if (pid > 0) {
    need(seteuid(0) == 0, "seteuid");
    if (user) map_ids(pid, few);
    need(write(mapped[1], "m", 1) == 1, "pipe");
    printf("%ld\n", pid);
    return fflush(stdout) ? 1 : 0;
  }
  char byte;
  need(read(mapped[0], &byte, 1) == 1, "pipe");
  int id = few ? 5 : 0;
  if (user) need((few || setgroups(0, NULL) == 0) && setresgid(id, id, id) == 0 && setresuid(id, id, id) == 0, "ids inside");
  if (user) need(prctl(PR_SET_DUMPABLE, 1) == 0, "dumpable");  // or its files in /proc were the host's
  if (own_time) enter_time();
  need(setsid() == 1, "setsid");
  build_root(argv[1], user);
  int null = open("/dev/null", O_RDWR);
  need(null >= 0, "/dev/null");
  for (int fd = 0; fd < 3; fd++) dup2(null, fd);
  syscall(SYS_close_range, 3, ~0u, 0);
  execv(argv[at + 1], argv + at + 1);
  _exit(127);
}
