// SPDX-License-Identifier: Apache-2.0
// Memory: private anonymous areas of several protections side by side, guard holes, heap by brk,
// stack, private and shared file mappings (changed and not), and executable code; mmap(2), proc_maps(5).
#include "live.h"

enum { kPage = 4096, kPages = 64 };
static unsigned char static_data[3 * kPage] = {1, 2, 3};
static unsigned char static_zero[5 * kPage];

static void fill(unsigned char *at, size_t size, unsigned seed) {
  for (size_t i = 0; i < size; i++) at[i] = (unsigned char)(seed * 31 + i * 7 + (i >> 12));
}
static size_t differs(const unsigned char *at, size_t size, unsigned seed) {
  for (size_t i = 0; i < size; i++)
    if (at[i] != (unsigned char)(seed * 31 + i * 7 + (i >> 12))) return i + 1;
  return 0;
}
#define SAME(at, size, seed) \
  do { size_t where = differs(at, size, seed); CHECK(where == 0, #at " differs at byte %zu", where - 1); } while (0)

static unsigned char *map(size_t pages, int protection) {
  void *at = mmap(NULL, pages * kPage, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(at != MAP_FAILED);
  return at;
}

static int make_file(const char *path, unsigned seed, int pages) {
  static unsigned char page[kPage];
  int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  CHECK(fd >= 0, "%s", path);
  for (int i = 0; i < pages; i++) {
    memset(page, (int)(seed + i), kPage);
    CHECK(write(fd, page, kPage) == kPage);
  }
  return fd;
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  unsigned char on_stack[64 * 1024];
  fill(on_stack, sizeof on_stack, 1);
  fill(static_data, sizeof static_data, 2);
  static_zero[4 * kPage + 7] = 9;

  unsigned char *heap = sbrk(0);
  CHECK(sbrk(40 * kPage) != (void *)-1);
  fill(heap, 40 * kPage, 3);

  // One area cut into rw | none | ro | rx | rw, with only every other page of the last ever touched.
  unsigned char *area = map(kPages, PROT_READ | PROT_WRITE);
  fill(area, 40 * kPage, 4);
  for (int i = 40; i < kPages; i += 2) area[i * kPage] = (unsigned char)i;
  CHECK(mprotect(area + 8 * kPage, 8 * kPage, PROT_NONE) == 0);
  CHECK(mprotect(area + 16 * kPage, 8 * kPage, PROT_READ) == 0);
  static const unsigned char kReturn42[] = {0xb8, 42, 0, 0, 0, 0xc3};  // mov eax, 42; ret
  memcpy(area + 24 * kPage, kReturn42, sizeof kReturn42);
  CHECK(mprotect(area + 24 * kPage, kPage, PROT_READ | PROT_EXEC) == 0);
  CHECK(munmap(area + 30 * kPage, 2 * kPage) == 0);  // a real hole

  unsigned char *big = map(2048, PROT_READ | PROT_WRITE);
  fill(big, 2048 * kPage, 5);
  unsigned char *reserve = mmap(NULL, 1ul << 30, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK(reserve != MAP_FAILED);
  unsigned char *discarded = map(16, PROT_READ | PROT_WRITE);
  fill(discarded, 16 * kPage, 6);
  CHECK(madvise(discarded + 4 * kPage, 4 * kPage, MADV_DONTNEED) == 0);

  int private_fd = make_file(live_path("private.dat"), 10, 8), shared_fd = make_file(live_path("shared.dat"), 50, 8);
  unsigned char *clean = mmap(NULL, 8 * kPage, PROT_READ, MAP_PRIVATE, private_fd, 0);
  unsigned char *changed = mmap(NULL, 6 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, private_fd, 2 * kPage);
  unsigned char *shared = mmap(NULL, 8 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, shared_fd, 0);
  CHECK(clean != MAP_FAILED && changed != MAP_FAILED && shared != MAP_FAILED);
  close(private_fd);
  close(shared_fd);
  changed[kPage + 5] = 200;
  shared[3 * kPage] = 201;

  void *top = sbrk(0);
  pid_t child = fork();  // copy-on-write pages: same addresses, own contents
  CHECK(child >= 0);
  if (child == 0) {
    big[77] = 1;
    live_wait();
    CHECK(big[77] == 1);
    big[77] = (unsigned char)(5 * 31 + 77 * 7);
    SAME(big, 2048 * kPage, 5);
    CHECK(area[0] == (unsigned char)(4 * 31));
    _exit(0);
  }
  // Where the kernel will put what is mapped into us from outside: it merges that with equal neighbours, which
  // must not be taken for it, nor go away with it.
  unsigned char *page = map(1, PROT_READ | PROT_EXEC), *guest = map(kPages, PROT_READ | PROT_WRITE);
  unsigned char *below = mmap(guest - 16 * kPage, 16 * kPage, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  unsigned char *above = mmap(guest + kPages * kPage, kPage, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  CHECK(munmap(page, kPage) == 0 && munmap(guest, kPages * kPage) == 0);
  if (below != MAP_FAILED) fill(below, 16 * kPage, 7);
  if (above != MAP_FAILED) fill(above, kPage, 8);
  live_ready();
  live_wait();

  if (below != MAP_FAILED) SAME(below, 16 * kPage, 7);
  if (above != MAP_FAILED) SAME(above, kPage, 8);
  SAME(on_stack, sizeof on_stack, 1);
  SAME(static_data, sizeof static_data, 2);
  CHECK(static_zero[4 * kPage + 7] == 9 && static_zero[0] == 0);
  CHECK(sbrk(0) == top, "brk moved from %p to %p", top, sbrk(0));
  SAME(heap, 40 * kPage, 3);
  CHECK(sbrk(kPage) == top, "the heap does not grow");
  *(unsigned char *)top = 1;

  SAME(area, 8 * kPage, 4);
  int probe[2];
  CHECK(pipe2(probe, O_CLOEXEC) == 0);
  CHECK(write(probe[1], area + 8 * kPage, 1) < 0 && errno == EFAULT, "PROT_NONE is readable");
  CHECK(write(probe[1], area + 30 * kPage, 1) < 0 && errno == EFAULT, "a hole is mapped");
  CHECK(syscall(SYS_getcwd, area + 16 * kPage, kPage) < 0 && errno == EFAULT, "read-only memory is writable");
  CHECK(mprotect(area + 8 * kPage, 8 * kPage, PROT_READ) == 0);
  for (size_t i = 8 * kPage; i < 40 * kPage; i++) {
    if (i / kPage >= 24 && i / kPage < 32) continue;  // code and the hole
    CHECK(area[i] == (unsigned char)(4 * 31 + i * 7 + (i >> 12)), "byte %zu", i);
  }
  CHECK(((int (*)(void))(area + 24 * kPage))() == 42);
  for (int i = 40; i < kPages; i++)
    CHECK(area[i * kPage] == (i % 2 == 0 ? (unsigned char)i : 0), "page %d holds %d", i, area[i * kPage]);
  SAME(big, 2048 * kPage, 5);
  CHECK(mprotect(reserve, kPage, PROT_READ | PROT_WRITE) == 0 && reserve[0] == 0);
  for (int i = 0; i < 16 * kPage; i++) {
    unsigned char want = i >= 4 * kPage && i < 8 * kPage ? 0 : (unsigned char)(6 * 31 + i * 7 + (i >> 12));
    CHECK(discarded[i] == want, "byte %d is %d, not %d", i, discarded[i], want);
  }
  for (int i = 0; i < 8; i++) CHECK(clean[i * kPage] == 10 + i);
  for (int i = 0; i < 6; i++) CHECK(changed[i * kPage] == 12 + i && changed[i * kPage + 5] == (i == 1 ? 200 : 12 + i));
  CHECK(shared[0] == 50 && shared[3 * kPage] == 201 && shared[3 * kPage + 1] == 53);
  shared[7 * kPage] = 202;  // still the file's own page
  int again = open(live_path("shared.dat"), O_RDONLY | O_CLOEXEC);
  unsigned char byte = 0;
  CHECK(pread(again, &byte, 1, 7 * kPage) == 1 && byte == 202, "a write to the mapping does not reach the file");
  live_reap_ok(child);
  live_ok();
}
