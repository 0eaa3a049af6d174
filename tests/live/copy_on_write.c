// SPDX-License-Identifier: Apache-2.0
// Memory that children have from their parents by fork is still shared after a restore, page by page; what either has
// written to or thrown away is its own. Shared means: the same page frame, as /proc/PID/pagemap tells root, or, where
// frames are hidden, that the page is not accounted to one process alone (smaps: Shared_*, Private_*).
#include "live.h"

enum { kPages = 3000, kChildren = 3 };
static char *block, *file_block;
static char **small;
static size_t page_size;

// In which state child i has page p.
static int state_of(int child, int p) { return (p * 7 + child) % 5; }  // 0: written to, 1: thrown away, else as it was
static char value(int who, int p) { return (char)(who * 31 + p % 97 + 1); }

static long field(const char *name, char *at) {
  static char text[1 << 20];
  char want[64];
  live_read_file("/proc/self/smaps", text, sizeof text);
  snprintf(want, sizeof want, "%lx-", (unsigned long)at);
  char *line = strstr(text, want);
  CHECK(line != NULL, "no mapping at %p", at);
  line = strstr(line, name);
  CHECK(line != NULL, "no %s", name);
  return strtol(line + strlen(name), NULL, 10);
}

static void child_change(int i) {
  for (int p = 0; p < kPages; p++) {
    char *at = block + p * page_size;
    if (state_of(i, p) == 0) *at = value(i + 1, p);
    if (state_of(i, p) == 1) CHECK(madvise(at, page_size, MADV_DONTNEED) == 0);
  }
  small[i] = strdup("mine");
  file_block[page_size] = value(i + 1, 1);
}

static void child_verify(int i) {
  int kept = 0;
  for (int p = 0; p < kPages; p++) {
    const char want = state_of(i, p) == 0 ? value(i + 1, p) : state_of(i, p) == 1 ? 0 : value(0, p);
    CHECK(block[p * page_size] == want, "child %d page %d is %d, not %d", i, p, block[p * page_size], want);
    kept += state_of(i, p) > 1;
  }
  CHECK(strcmp(small[i], "mine") == 0 && strcmp(small[kChildren], "parent's") == 0);
  CHECK(file_block[0] == value(0, 0) && file_block[page_size] == value(i + 1, 1));
  const long shared = field("Shared_Clean:", block) + field("Shared_Dirty:", block), whole = kept * (long)page_size / 1024;
  // What was looked at just now and thrown away before is the zero page; four pages others have written to.
  CHECK(shared >= whole - 16, "child %d shares %ld KiB instead of %ld", i, shared, whole);
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  page_size = sysconf(_SC_PAGESIZE);
  block = mmap(NULL, kPages * page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(block != MAP_FAILED);
  CHECK(madvise(block, kPages * page_size, MADV_NOHUGEPAGE) == 0 || errno == EINVAL);
  for (int p = 0; p < kPages; p++) block[p * page_size] = value(0, p);
  int fd = open(live_path("mapped"), O_RDWR | O_CREAT | O_TRUNC, 0600);
  CHECK(fd >= 0 && ftruncate(fd, 4 * page_size) == 0);
  file_block = mmap(NULL, 4 * page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
  CHECK(file_block != MAP_FAILED);
  close(fd);
  file_block[0] = value(0, 0);
  small = calloc(kChildren + 1, sizeof *small);
  small[kChildren] = strdup("parent's");
  struct live_gate gate = live_gate_open();
  pid_t pids[kChildren];
  for (int i = 0; i < kChildren; i++) {
    if ((pids[i] = fork()) == 0) {
      if (i == 0) setsid();  // another way into the tree
      child_change(i);
      // A grandchild has some from each of them.
      pid_t below = fork();
      if (below == 0) {
        block[2 * page_size] = 99;
        live_gate_pass(gate);
        live_wait();
        for (int p = 3; p < kPages; p++)
          CHECK(block[p * page_size] == (state_of(i, p) == 0 ? value(i + 1, p) : state_of(i, p) == 1 ? 0 : value(0, p)),
                "grandchild %d page %d", i, p);
        CHECK(block[2 * page_size] == 99);
        _exit(0);
      }
      live_gate_pass(gate);
      live_wait();
      child_verify(i);
      live_reap_ok(below);
      _exit(0);
    }
  }
  live_gate_await(gate, 2 * kChildren);
  // The parent changes some too, after all have theirs.
  block[0] = 77;
  live_ready();
  live_wait();
  CHECK(block[0] == 77);
  for (int p = 1; p < kPages; p++) CHECK(block[p * page_size] == value(0, p), "page %d of the parent", p);
  CHECK(file_block[page_size] == 0);
  // Written to now, by one: nobody else sees it.
  block[5 * page_size] = 55;
  for (int i = 0; i < kChildren; i++) live_reap_ok(pids[i]);
  live_ok();
}
