// SPDX-License-Identifier: Apache-2.0
// Huge TLB pages: private, shared with a child, of a memory file, of a System V segment; what was never touched stays
// so; mmap(2) MAP_HUGETLB, memfd_create(2) MFD_HUGETLB, shmget(2) SHM_HUGETLB.
#include "live.h"
#include <sys/shm.h>

static const size_t kHuge = 2ul << 20;

static char *map(size_t pages, int flags, int fd) {
  void *at = mmap(NULL, pages * kHuge, PROT_READ | PROT_WRITE, flags, fd, 0);
  if (at == MAP_FAILED && errno == ENOMEM) _exit(77);  // no such pages here
  CHECK(at != MAP_FAILED);
  return at;
}
static void fill(char *at, int seed) {
  for (size_t i = 0; i < kHuge; i += 512) at[i] = (char)(seed + i / 4096);
}
static void same(const char *at, int seed) {
  for (size_t i = 0; i < kHuge; i += 512) CHECK(at[i] == (char)(seed + i / 4096), "byte %zu of %d", i, seed);
}
static int is_huge(const void *address) {  // -1: no /proc
  char line[512];
  int inside = 0, huge = 0;
  FILE *file = fopen("/proc/self/smaps", "re");
  if (!file) return -1;
  while (fgets(line, sizeof line, file)) {
    unsigned long start, end;
    if (sscanf(line, "%lx-%lx ", &start, &end) == 2) inside = start <= (unsigned long)address && (unsigned long)address < end;
    if (inside && !strncmp(line, "KernelPageSize:", 15)) huge = strstr(line, " 2048 kB") != NULL;
  }
  fclose(file);
  return huge;
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  char *private = map(2, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1);
  char *shared = map(2, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB, -1);
  int fd = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB | MFD_ALLOW_SEALING);
  CHECK(fd >= 0 && ftruncate(fd, 2 * (off_t)kHuge) == 0);
  char *file = map(2, MAP_SHARED, fd);
  CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) == 0);
  fill(private + kHuge, 1), fill(shared, 2), fill(file + kHuge, 3);
  CHECK(mprotect(private, kHuge, PROT_NONE) == 0);
  char *segment = NULL;
  int id = -1;
  if (getpid() == 1) {  // an ipc namespace of our own
    id = shmget(IPC_PRIVATE, kHuge, IPC_CREAT | SHM_HUGETLB | 0600);
    CHECK(id >= 0 || errno == EPERM, "only who may lock memory on the host may have it");
    segment = id < 0 ? NULL : shmat(id, NULL, 0);
    CHECK(segment != (void *)-1);
    if (segment) fill(segment, 4);
  }
  struct live_gate gate = live_gate_open();
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    live_gate_pass(gate);
    live_wait();
    for (int i = 0; i < 3000 && shared[1] != 77; i++) live_pause();
    CHECK(shared[1] == 77, "not shared any more");
    same(private + kHuge, 1);
    _exit(0);
  }
  live_gate_await(gate, 1);
  live_ready();
  live_wait();

  same(private + kHuge, 1), same(shared, 2), same(file + kHuge, 3);
  CHECK(is_huge(private) && is_huge(shared) && is_huge(file), "ordinary pages now");
  CHECK(mprotect(private, kHuge, PROT_READ | PROT_WRITE) == 0 && private[0] == 0 && shared[kHuge] == 0 && file[0] == 0);
  struct stat st;
  CHECK(fstat(fd, &st) == 0 && st.st_size == 2 * (off_t)kHuge && st.st_blksize == (blksize_t)kHuge);
  CHECK(fcntl(fd, F_GET_SEALS) == F_SEAL_SHRINK);
  char byte;
  CHECK(pread(fd, &byte, 1, (off_t)kHuge) == 1 && byte == 3);
  if (segment) {
    struct shmid_ds ds;
    same(segment, 4);
    CHECK(shmctl(id, IPC_STAT, &ds) == 0 && ds.shm_nattch >= 1);
    CHECK(shmdt(segment) == 0 && shmctl(id, IPC_RMID, NULL) == 0);
  }
  shared[1] = 77;
  live_reap_ok(child);
  live_ok();
}
