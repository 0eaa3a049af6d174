// SPDX-License-Identifier: Apache-2.0
// ns_launch ROOT [cgroup] -- PROGRAM ARGS...: starts PROGRAM as pid 1 of new pid, mount, uts, ipc and net (and cgroup)
// namespaces with ROOT as its root, much as a container runtime does, prints its pid and exits.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/types.h>
#include <unistd.h>

static void need(int ok, const char *what) {
  if (ok) return;
  perror(what);
  _exit(1);
}
static void node(const char *path, unsigned major_number, unsigned minor_number) {
  need(mknod(path, S_IFCHR | 0666, makedev(major_number, minor_number)) == 0 && chmod(path, 0666) == 0, path);
}

static void build_root(const char *root) {
  need(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0, "private");
  need(mount(root, root, NULL, MS_BIND | MS_REC, NULL) == 0, "bind root");
  need(chdir(root) == 0, root);
  static const char *const kDirectories[] = {"proc", "dev", "sys", "tmp", "run"};
  for (size_t i = 0; i < sizeof kDirectories / sizeof *kDirectories; i++) mkdir(kDirectories[i], 0755);
  need(mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) == 0, "proc");
  need(mount("tmpfs", "dev", "tmpfs", MS_NOSUID, "mode=755,size=64k") == 0, "dev");
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
  if (argc > at && strcmp(argv[at], "cgroup") == 0) flags |= CLONE_NEWCGROUP, at++;
  if (argc <= at + 1 || strcmp(argv[at], "--")) return fprintf(stderr, "usage: ns_launch ROOT [cgroup] -- PROGRAM...\n"), 2;
  long pid = syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
  need(pid >= 0, "clone");
  if (pid > 0) {
    printf("%ld\n", pid);
    return fflush(stdout) ? 1 : 0;
  }
  need(setsid() == 1, "setsid");
  build_root(argv[1]);
  int null = open("/dev/null", O_RDWR);
  need(null >= 0, "/dev/null");
  for (int fd = 0; fd < 3; fd++) dup2(null, fd);
  syscall(SYS_close_range, 3, ~0u, 0);
  execv(argv[at + 1], argv + at + 1);
  _exit(127);
}
