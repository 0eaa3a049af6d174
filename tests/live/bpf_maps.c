// SPDX-License-Identifier: Apache-2.0
// BPF maps of data: an array, a hash, a frozen one; limits, names, contents, several open files of one map; bpf(2).
#include "live.h"
#include <linux/bpf.h>

static long bpf(int command, union bpf_attr *attributes) { return syscall(SYS_bpf, command, attributes, sizeof *attributes); }
static int make(int type, int key, int value, int most, int flags, const char *name) {
  union bpf_attr a = {.map_type = type, .key_size = key, .value_size = value, .max_entries = most, .map_flags = flags};
  strcpy(a.map_name, name);
  return bpf(BPF_MAP_CREATE, &a);
}
static int put(int fd, const void *key, const void *value) {
  union bpf_attr a = {.map_fd = fd, .key = (uintptr_t)key, .value = (uintptr_t)value};
  return bpf(BPF_MAP_UPDATE_ELEM, &a);
}
static int get(int fd, const void *key, void *value) {
  union bpf_attr a = {.map_fd = fd, .key = (uintptr_t)key, .value = (uintptr_t)value};
  return bpf(BPF_MAP_LOOKUP_ELEM, &a);
}
static struct bpf_map_info about(int fd) {
  struct bpf_map_info info = {};
  union bpf_attr a = {.info = {.bpf_fd = fd, .info_len = sizeof info, .info = (uintptr_t)&info}};
  CHECK(bpf(BPF_OBJ_GET_INFO_BY_FD, &a) == 0);
  return info;
}
static void is(int fd, uint32_t type, uint32_t key, uint32_t value, uint32_t most, uint32_t flags, const char *name) {
  struct bpf_map_info m = about(fd);
  CHECK(m.type == type && m.key_size == key && m.value_size == value && m.max_entries == most && m.map_flags == flags && !strcmp(m.name, name),
        "type %u, key %u, value %u, entries %u, flags %x, name %s", m.type, m.key_size, m.value_size, m.max_entries, m.map_flags, m.name);
}

int main(int argc, char **argv) {
  live_init(argc, argv);
  int array = make(BPF_MAP_TYPE_ARRAY, 4, 9, 1000, 0, "live_array");
  if (array < 0 && (errno == EPERM || errno == ENOSYS)) _exit(77);
  int hash = make(BPF_MAP_TYPE_HASH, 6, 3, 50, BPF_F_NO_PREALLOC, "live.hash"), constant = make(BPF_MAP_TYPE_ARRAY, 4, 4, 2, BPF_F_RDONLY_PROG, "");
  int empty = make(BPF_MAP_TYPE_HASH, 4, 4, 7, 0, "empty");
  CHECK(array >= 0 && hash >= 0 && constant >= 0 && empty >= 0);
  for (uint32_t i = 0; i < 1000; i++) {
    char value[9] = {0};
    memcpy(value + 1, &i, sizeof i);
    CHECK(put(array, &i, value) == 0);
  }
  CHECK(put(hash, "first1", "abc") == 0 && put(hash, "second", "def") == 0);
  uint32_t zero = 0, one = 1, value = 77;
  CHECK(put(constant, &one, &value) == 0);
  union bpf_attr a = {.map_fd = constant};
  CHECK(bpf(BPF_MAP_FREEZE, &a) == 0 && put(constant, &one, &value) < 0 && errno == EPERM);
  memset(&a, 0, sizeof a);
  a.map_id = about(hash).id, a.open_flags = BPF_F_RDONLY;
  int reader = bpf(BPF_MAP_GET_FD_BY_ID, &a), twin = dup(array);
  CHECK(reader >= 0 && twin >= 0 && fcntl(hash, F_SETFD, 0) == 0);
  live_ready();
  live_wait();

  is(array, BPF_MAP_TYPE_ARRAY, 4, 9, 1000, 0, "live_array");
  is(hash, BPF_MAP_TYPE_HASH, 6, 3, 50, BPF_F_NO_PREALLOC, "live.hash");
  is(constant, BPF_MAP_TYPE_ARRAY, 4, 4, 2, BPF_F_RDONLY_PROG, "");
  is(empty, BPF_MAP_TYPE_HASH, 4, 4, 7, 0, "empty");
  for (uint32_t i = 0; i < 1000; i++) {
    char now[16] = {0};
    CHECK(get(twin, &i, now) == 0 && !memcmp(now + 1, &i, sizeof i), "element %u", i);
  }
  char now[8] = {0};
  CHECK(get(reader, "first1", now) == 0 && !memcmp(now, "abc", 3) && get(reader, "second", now) == 0 && !memcmp(now, "def", 3));
  CHECK(get(hash, "third3", now) < 0 && errno == ENOENT && put(reader, "third3", "ghi") < 0 && errno == EPERM);
  CHECK(put(hash, "third3", "ghi") == 0 && get(reader, "third3", now) == 0 && !memcmp(now, "ghi", 3), "one map");
  CHECK(about(reader).id == about(hash).id && about(twin).id == about(array).id && about(array).id != about(hash).id);
  CHECK(get(constant, &one, now) == 0 && !memcmp(now, &value, 4) && get(constant, &zero, now) == 0 && !memcmp(now, &zero, 4));
  CHECK(put(constant, &one, &value) < 0 && errno == EPERM, "it is not frozen any more");
  CHECK(get(empty, &one, now) < 0 && errno == ENOENT && fcntl(hash, F_GETFD) == 0 && fcntl(array, F_GETFD) == FD_CLOEXEC);
  live_ok();
}
