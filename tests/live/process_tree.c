// SPDX-License-Identifier: Apache-2.0
// The tree: exact pids, process groups (foreground and background), a child in its own session, and a
// grandchild whose parent has gone (it is reparented to this program); setsid(2), setpgid(2), prctl(2).
#include "live.h"

struct kin { pid_t pid, ppid, pgid, sid; };
static struct kin kin_now(void) { return (struct kin){getpid(), getppid(), getpgrp(), getsid(0)}; }
static void kin_same(const char *who, struct kin was) {
  struct kin now = kin_now();
  CHECK(now.pid == was.pid && now.ppid == was.ppid && now.pgid == was.pgid && now.sid == was.sid,
        "%s: pid %d->%d ppid %d->%d pgid %d->%d sid %d->%d", who, was.pid, now.pid, was.ppid, now.ppid, was.pgid,
        now.pgid, was.sid, now.sid);
}

// `orphan`: forked once more by a parent that exits at once.
static pid_t start(const char *who, void (*become)(void), int orphan) {
  struct live_gate gate = live_gate_open();
  pid_t self = getpid(), child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    if (orphan) {
      if (fork()) _exit(0);
      while (getppid() != self) live_pause();
    }
    become();
    struct kin was = kin_now();
    live_gate_pass(gate);
    live_wait();
    kin_same(who, was);
    for (int status; wait(&status) > 0;) CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    _exit(0);
  }
  live_gate_await(gate, 1);
  if (orphan) live_reap_ok(child);
  return child;
}

static void as_is(void) {}
static void own_group(void) { CHECK(setpgid(0, 0) == 0); }
static void own_session(void) { CHECK(setsid() == getpid()); }
static pid_t group_to_join;
static void join_group(void) { CHECK(setpgid(0, group_to_join) == 0); }
static void session_with_groups(void) {  // a session of three: leader, member of its group, background group
  own_session();
  start("member", as_is, 0);
  start("background", own_group, 0);
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
  int count = 6;
  start("plain", as_is, 0);
  group_to_join = start("group leader", own_group, 0);
  start("group member", join_group, 0);
  start("session", session_with_groups, 0);
  start("orphan", as_is, 1);
  start("orphan session", own_session, 1);
  struct kin was = kin_now();
  live_ready();
  live_wait();

  // The parent of the root itself is the runner's business, not part of the tree.
  struct kin now = kin_now();
  CHECK(now.pid == was.pid && now.pgid == was.pgid && now.sid == was.sid);
  int reaper = 0;
  CHECK(prctl(PR_GET_CHILD_SUBREAPER, &reaper) == 0 && reaper == 1);
  int status, seen = 0;
  for (pid_t pid; (pid = wait(&status)) > 0; seen++)
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "child %d: %#x", pid, status);
  CHECK(seen >= count, "only %d children were left to wait for", seen);
  live_ok();
}
