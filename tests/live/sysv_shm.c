// SPDX-License-Identifier: Apache-2.0
// System V shared memory: ids, keys, owners and modes, contents with holes, a segment that nobody has attached, one
// that is removed and lives by its attachments, read-only and partial attachments, two tasks; shmget(2), shmat(2).
#include "live.h"
#include <sys/shm.h>

enum { kPage = 4096 };
static const key_t kKey = 0x5ca1ab1e;

static int make(key_t key, size_t size, int mode) {
  int id = shmget(key, size, IPC_CREAT | IPC_EXCL | mode);
  CHECK(id >= 0, "key %x", key);
  return id;
}
static char *attach(int id, int flags) {
  void *at = shmat(id, NULL, flags);
  CHECK(at != (void *)-1, "segment %d", id);
  return at;
}
static struct shmid_ds stat_of(int id) {
  struct shmid_ds ds;
  CHECK(shmctl(id, IPC_STAT, &ds) == 0, "segment %d", id);
  return ds;
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  int first = make(IPC_PRIVATE, kPage, 0600);  // the first of a namespace has the id 0
  char *zero = attach(first, 0);
  strcpy(zero, "first");
  int gone = make(IPC_PRIVATE, kPage, 0600);  // so that the ids that stay are not the first ones
  CHECK(shmctl(gone, IPC_RMID, NULL) == 0);
  int named = make(kKey, 100 * kPage + 5, 0640), lonely = make(IPC_PRIVATE, 3 * kPage, 0600);
  int removed = make(IPC_PRIVATE, 2 * kPage, 0600), empty = make(kKey + 1, 64 << 20, 0666);
  struct shmid_ds ds = stat_of(named);
  ds.shm_perm.uid = 1234, ds.shm_perm.gid = 4321;
  CHECK(shmctl(named, IPC_SET, &ds) == 0);
  CHECK(seteuid(77) == 0);
  int theirs = make(IPC_PRIVATE, kPage, 0666);
  CHECK(seteuid(0) == 0);

  char *whole = attach(named, 0), *view = attach(named, SHM_RDONLY), *part = attach(named, 0);
  strcpy(whole, "begin"), strcpy(whole + 100 * kPage, "end"), strcpy(whole + 50 * kPage, "middle");
  CHECK(munmap(part, 40 * kPage) == 0 && munmap(part + 60 * kPage, 41 * kPage) == 0);
  CHECK(mprotect(part + 45 * kPage, kPage, PROT_NONE) == 0);
  // Other memory in the gap that a part has left.
  char *guest = mmap(part, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  CHECK(guest == part);
  strcpy(guest, "guest");
  char *once = attach(lonely, 0);
  strcpy(once + kPage, "nobody has this");
  CHECK(shmdt(once) == 0);
  char *dying = attach(removed, 0);
  strcpy(dying, "still here");
  attach(theirs, 0)[0] = 9;

  // A limit that was lowered says nothing about what is there.
  int limit = open("/proc/sys/kernel/shmmax", O_WRONLY | O_CLOEXEC), lowered = limit >= 0;
  if (lowered) CHECK(write(limit, "1000000\n", 8) == 8 && close(limit) == 0);

  struct live_gate gate = live_gate_open();
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    CHECK(shmdt(whole) == 0 && shmdt(view) == 0);
    CHECK(shmctl(removed, IPC_RMID, NULL) == 0);
    live_gate_pass(gate);
    live_wait();
  char *again = attach(first, 0);
  strcat(again, " still");
  CHECK(strcmp(zero, "first still") == 0, "segment %d: %s", first, zero);
  CHECK(shmdt(again) == 0);
    for (int i = 0; i < 3000 && strcmp(dying + 100, "ping"); i++) live_pause();
    CHECK(!strcmp(dying + 100, "ping"), "the removed segment is not shared any more");
    CHECK(!strcmp(part + 50 * kPage, "changed"), "%s", part + 50 * kPage);
    strcpy(dying + 200, "pong");
    _exit(0);
  }
  live_gate_await(gate, 1);
  unsigned long attached = stat_of(named).shm_nattch, attached_removed = stat_of(removed).shm_nattch;
  live_ready();
  live_wait();

  char now[32];
  if (lowered) CHECK(!strcmp(live_read_file("/proc/sys/kernel/shmmax", now, sizeof now), "1000000\n"), "shmmax is %s", now);
  if (lowered) CHECK(shmget(IPC_PRIVATE, 2000000, 0600) < 0 && errno == EINVAL);
  CHECK(shmget(kKey, 0, 0) == named && shmget(kKey + 1, 0, 0) == empty, "ids have changed");
  ds = stat_of(named);
  CHECK(ds.shm_segsz == 100 * kPage + 5 && ds.shm_perm.uid == 1234 && ds.shm_perm.gid == 4321 && ds.shm_perm.cuid == 0);
  CHECK((ds.shm_perm.mode & 0777) == 0640 && ds.shm_nattch == attached, "mode %o, %lu attached, not %lu",
        ds.shm_perm.mode, ds.shm_nattch, attached);
  CHECK(!strcmp(whole, "begin") && !strcmp(view + 100 * kPage, "end") && !strcmp(part + 50 * kPage, "middle"));
  CHECK(!strcmp(guest, "guest"));
  CHECK(mprotect(view, kPage, PROT_READ | PROT_WRITE) < 0 && errno == EACCES, "a read-only attachment can be written");
  int probe[2];
  CHECK(pipe2(probe, O_CLOEXEC) == 0);
  CHECK(write(probe[1], part + 45 * kPage, 1) < 0 && errno == EFAULT, "PROT_NONE is readable");
  CHECK(write(probe[1], part + 39 * kPage, 1) < 0 && errno == EFAULT, "a part that was unmapped is back");
  CHECK(mprotect(part + 45 * kPage, kPage, PROT_READ | PROT_WRITE) == 0);
  strcpy(part + 50 * kPage, "changed");
  CHECK(!strcmp(whole + 50 * kPage, "changed"));
  ds = stat_of(lonely);
  CHECK(ds.shm_nattch == 0);
  once = attach(lonely, 0);
  CHECK(!strcmp(once + kPage, "nobody has this") && once[0] == 0);
  ds = stat_of(removed);
  CHECK((ds.shm_perm.mode & SHM_DEST) && ds.shm_nattch == attached_removed);
  CHECK(!strcmp(dying, "still here"));
  strcpy(dying + 100, "ping");
  for (int i = 0; i < 3000 && strcmp(dying + 200, "pong"); i++) live_pause();
  CHECK(!strcmp(dying + 200, "pong"));
  live_reap_ok(child);
  CHECK(shmdt(dying) == 0, "not an attachment");
  CHECK(shmctl(removed, IPC_STAT, &ds) < 0, "the removed segment outlives its attachments");
  CHECK(stat_of(theirs).shm_perm.cuid == 77 && stat_of(theirs).shm_perm.uid == 77);
  CHECK(shmdt(whole) == 0 && shmdt(view) == 0);
  live_ok();
}
