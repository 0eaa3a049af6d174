// SPDX-License-Identifier: Apache-2.0
// User and group ids (real, effective, saved, fs), supplementary groups, the five capability sets, securebits,
// keepcaps, no_new_privs, dumpable, pdeathsig, per task; credentials(7), capabilities(7).
#include "live.h"
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/fsuid.h>

struct creds {
  uid_t uid[4];
  gid_t gid[4];
  gid_t groups[64];
  int group_count, securebits, keepcaps, no_new_privs, dumpable, pdeathsig;
  struct __user_cap_data_struct caps[2];
  uint64_t bounding, ambient;
};

static void collect(struct creds *c) {
  memset(c, 0, sizeof *c);
  CHECK(getresuid(&c->uid[0], &c->uid[1], &c->uid[2]) == 0 && getresgid(&c->gid[0], &c->gid[1], &c->gid[2]) == 0);
  c->uid[3] = setfsuid(-1);
  c->gid[3] = setfsgid(-1);
  c->group_count = getgroups(64, c->groups);
  c->securebits = prctl(PR_GET_SECUREBITS);
  c->keepcaps = prctl(PR_GET_KEEPCAPS);
  c->no_new_privs = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
  c->dumpable = prctl(PR_GET_DUMPABLE);
  CHECK(prctl(PR_GET_PDEATHSIG, &c->pdeathsig) == 0);
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  CHECK(syscall(SYS_capget, &header, c->caps) == 0);
  for (int cap = 0; cap <= 63; cap++) {
    if (prctl(PR_CAPBSET_READ, cap) == 1) c->bounding |= 1ull << cap;
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, cap, 0, 0) == 1) c->ambient |= 1ull << cap;
  }
}

static void compare(const char *who, const struct creds *was) {
  struct creds now;
  collect(&now);
#define EQUAL(field) CHECK(memcmp(&was->field, &now.field, sizeof now.field) == 0, "%s: " #field " %#lx -> %#lx", who, \
                           *(const unsigned long *)&was->field, *(const unsigned long *)&now.field)
  for (int i = 0; i < 4; i++)
    CHECK(was->uid[i] == now.uid[i] && was->gid[i] == now.gid[i], "%s: id %d: uid %u->%u gid %u->%u", who, i, was->uid[i],
          now.uid[i], was->gid[i], now.gid[i]);
  CHECK(was->group_count == now.group_count && memcmp(was->groups, now.groups, sizeof now.groups) == 0, "%s: groups", who);
#define SAME_INT(field) CHECK(was->field == now.field, "%s: " #field " %d->%d", who, was->field, now.field)
  SAME_INT(securebits); SAME_INT(keepcaps); SAME_INT(no_new_privs); SAME_INT(dumpable); SAME_INT(pdeathsig);
  EQUAL(caps[0]); EQUAL(caps[1]); EQUAL(bounding); EQUAL(ambient);
}

static void set_caps(uint64_t effective, uint64_t permitted, uint64_t inheritable) {
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct data[2] = {{effective, permitted, inheritable}, {effective >> 32, permitted >> 32, inheritable >> 32}};
  CHECK(syscall(SYS_capset, &header, data) == 0);
}

#define BIT(cap) (1ull << (cap))
static void like_a_container(void) {  // as a runtime leaves it: fewer capabilities, ambient ones, no_new_privs
  const uint64_t kept = BIT(CAP_KILL) | BIT(CAP_NET_BIND_SERVICE) | BIT(CAP_SETPCAP);
  for (int cap = 0; cap <= 63; cap++)
    if (!(kept & BIT(cap)) && prctl(PR_CAPBSET_READ, cap) == 1) CHECK(prctl(PR_CAPBSET_DROP, cap) == 0);
  set_caps(kept, kept, kept);
  CHECK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_BIND_SERVICE, 0, 0) == 0);
  CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
}
static void plain_user(void) {
  gid_t groups[] = {7, 1000, 70000};
  CHECK(setgroups(3, groups) == 0 && setresgid(1001, 1002, 1003) == 0 && setresuid(2001, 2002, 2003) == 0);
}
static void keeps_capabilities(void) {
  CHECK(prctl(PR_SET_KEEPCAPS, 1) == 0 && setgroups(0, NULL) == 0 && setresgid(50, 50, 50) == 0 && setresuid(60, 60, 60) == 0);
  set_caps(BIT(CAP_CHOWN), BIT(CAP_CHOWN) | BIT(CAP_SYS_ADMIN), 0);
  setfsuid(60);
}
static void secure_bits(void) {
  CHECK(prctl(PR_SET_SECUREBITS, SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP) == 0);
  CHECK(setresuid(0, 3000, 0) == 0);
  CHECK(prctl(PR_SET_DUMPABLE, 1) == 0);
  CHECK(prctl(PR_SET_PDEATHSIG, SIGUSR1) == 0);
}
static void not_dumpable(void) { CHECK(prctl(PR_SET_DUMPABLE, 0) == 0); }
static void fs_ids(void) {
  setfsuid(4000);
  setfsgid(4001);
}

static const struct { const char *name; void (*become)(void); } kTasks[] = {
    {"container", like_a_container}, {"user", plain_user},        {"keepcaps", keeps_capabilities},
    {"securebits", secure_bits},     {"undumpable", not_dumpable}, {"fs ids", fs_ids}};
enum { kCount = sizeof kTasks / sizeof *kTasks };

int main(int argc, char **argv) {
  live_init(argc, argv);
  // Children without privilege still write their FAIL line.
  char directory[PATH_MAX];
  snprintf(directory, sizeof directory, "%s", live_path("."));
  CHECK(chmod(directory, 0777) == 0);
  struct live_gate gate = live_gate_open();
  pid_t children[kCount];
  for (int i = 0; i < kCount; i++) {
    children[i] = fork();
    CHECK(children[i] >= 0);
    if (children[i] == 0) {
      struct creds was;
      kTasks[i].become();
      collect(&was);
      live_gate_pass(gate);
      live_wait();
      compare(kTasks[i].name, &was);
      _exit(0);
    }
  }
  struct creds was;
  collect(&was);
  live_gate_await(gate, kCount);
  live_ready();
  live_wait();
  compare("root", &was);
  for (int i = 0; i < kCount; i++) live_reap_ok(children[i]);
  live_ok();
}
