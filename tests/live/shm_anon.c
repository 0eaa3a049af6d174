// SPDX-License-Identifier: Apache-2.0
// Shared anonymous memory: one object for parent, child and grandchild; parts of it at other addresses, offsets and
// protections; a part that nobody maps; one by way of /dev/zero; a sparse gigabyte; mmap(2), zero(4).
#include "live.h"
#include <stdatomic.h>

enum { kPage = 4096, kPages = 64 };
static const size_t kSparse = 1ul << 30;

static unsigned char *map(size_t size, int protection, int fd) {
  void *at = mmap(NULL, size, protection, MAP_SHARED | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0);
  CHECK(at != MAP_FAILED);
  return at;
}
static unsigned char byte_at(size_t i) { return (unsigned char)(i * 7 + (i >> 12)); }
static void name_of(const void *address, char *out, size_t size) {  // line of /proc/self/maps
  FILE *maps = fopen("/proc/self/maps", "re");
  if (!maps) return (void)snprintf(out, size, "no /proc");
  while (fgets(out, (int)size, maps)) {
    unsigned long start, end;
    if (sscanf(out, "%lx-%lx", &start, &end) == 2 && start <= (unsigned long)address && (unsigned long)address < end) break;
  }
  fclose(maps);
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  unsigned char *whole = map(kPages * kPage, PROT_READ | PROT_WRITE, -1);
  for (size_t i = 0; i < kPages * kPage; i++) whole[i] = byte_at(i);
  CHECK(madvise(whole + 20 * kPage, 4 * kPage, MADV_REMOVE) == 0);  // a hole
  // A second view of a part: mremap(2) with an old size of 0 shows the same object again.
  unsigned char *view = mremap(whole + 8 * kPage, 0, 4 * kPage, MREMAP_MAYMOVE);
  CHECK(view != MAP_FAILED);
  CHECK(mprotect(view + 2 * kPage, kPage, PROT_READ) == 0 && mprotect(view + 3 * kPage, kPage, PROT_NONE) == 0);
  // The last pages are mapped by nobody, and still part of the object.
  CHECK(munmap(whole + 60 * kPage, 4 * kPage) == 0);

  int zero = open("/dev/zero", O_RDWR | O_CLOEXEC);
  unsigned char *by_device = map(2 * kPage, PROT_READ | PROT_WRITE, zero);
  close(zero);
  by_device[kPage + 1] = 33;

  unsigned char *sparse = map(kSparse, PROT_READ | PROT_WRITE, -1);
  sparse[0] = 1, sparse[kSparse / 2] = 2, sparse[kSparse - 1] = 3;
  unsigned char *empty = map(8 * kPage, PROT_READ | PROT_WRITE, -1);

  atomic_int *turn = (atomic_int *)map(kPage, PROT_READ | PROT_WRITE, -1);
  char before[256], after[256];
  name_of(whole, before, sizeof before);

  struct live_gate gate = live_gate_open();
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    CHECK(munmap(sparse, kSparse) == 0 && munmap(view, 4 * kPage) == 0);
    pid_t grandchild = fork();
    CHECK(grandchild >= 0);
    if (grandchild == 0) {
      CHECK(munmap(whole, 16 * kPage) == 0);  // begins at an offset
      live_gate_pass(gate);
      live_wait();
      while (atomic_load(turn) != 2) live_pause();
      CHECK(whole[16 * kPage] == 201 && whole[17 * kPage + 3] == byte_at(17 * kPage + 3));
      whole[30 * kPage] = 202;
      atomic_store(turn, 3);
      _exit(0);
    }
    live_gate_pass(gate);
    live_wait();
    while (atomic_load(turn) != 1) live_pause();
    CHECK(whole[8 * kPage] == 200, "what the parent wrote through its view is not seen");
    CHECK(by_device[kPage + 1] == 33 && empty[0] == 77);
    whole[16 * kPage] = 201;
    atomic_store(turn, 2);
    live_reap_ok(grandchild);
    _exit(0);
  }
  live_gate_await(gate, 2);
  live_ready();
  live_wait();

  for (size_t i = 0; i < 60 * kPage; i++) {
    unsigned char want = i / kPage >= 20 && i / kPage < 24 ? 0 : byte_at(i);
    CHECK(whole[i] == want, "byte %zu is %d, not %d", i, whole[i], want);
  }
  name_of(whole, after, sizeof after);
  CHECK(!strcmp(strchr(before, '/') ? strchr(before, '/') : "", strchr(after, '/') ? strchr(after, '/') : ""),
        "mapped as %s, was %s", after, before);
  unsigned char *tail = mremap(whole + 59 * kPage, 0, 5 * kPage, MREMAP_MAYMOVE);
  CHECK(tail != MAP_FAILED && tail[4 * kPage + 9] == byte_at(63 * kPage + 9), "the unmapped end of the object is gone");
  CHECK(view[kPage] == byte_at(9 * kPage) && view[2 * kPage] == byte_at(10 * kPage));
  int probe[2];
  CHECK(pipe2(probe, O_CLOEXEC) == 0);
  CHECK(write(probe[1], view + 3 * kPage, 1) < 0 && errno == EFAULT, "PROT_NONE is readable");
  CHECK(syscall(SYS_getcwd, view + 2 * kPage, kPage) < 0 && errno == EFAULT, "read-only memory is writable");
  CHECK(mprotect(view + 3 * kPage, kPage, PROT_READ | PROT_WRITE) == 0 && view[3 * kPage] == byte_at(11 * kPage));
  CHECK(by_device[kPage + 1] == 33 && by_device[0] == 0);
  CHECK(sparse[0] == 1 && sparse[kSparse / 2] == 2 && sparse[kSparse - 1] == 3);
  unsigned char resident[16];
  CHECK(mincore(sparse + 16 * kPage, 16 * kPage, resident) == 0);
  for (int i = 0; i < 16; i++) CHECK(!(resident[i] & 1), "a hole is filled");
  view[0] = 200;
  empty[0] = 77;
  atomic_store(turn, 1);
  while (atomic_load(turn) != 3) live_pause();
  CHECK(whole[30 * kPage] == 202, "the grandchild has another object");
  live_reap_ok(child);
  live_ok();
}
