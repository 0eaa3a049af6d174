// SPDX-License-Identifier: Apache-2.0
// A program that uses libcriu: TRANSPORT (swrk or socket), PATH, COMMAND, then IMAGES-DIR and PID. It says what came back.
// The prototypes are libcriu.so.2's; its header would need protobuf-c's.
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct criu_feature_check {
  bool mem_track, lazy_pages, pidfd_store;
};
int criu_init_opts(void);
int criu_set_service_binary(const char *path);
int criu_set_service_address(const char *path);
void criu_set_images_dir_fd(int fd);
void criu_set_pid(int pid);
void criu_set_log_level(int level);
int criu_set_log_file(const char *name);
void criu_set_notify_cb(int (*callback)(char *action, void *argument));
int criu_notify_pid(void *argument);
int criu_check(void);
int criu_dump(void);
int criu_pre_dump(void);
int criu_restore(void);
int criu_restore_child(void);
int criu_get_version(void);
int criu_check_version(int minimum);
int criu_feature_check(struct criu_feature_check *features, size_t size);

static int notified(char *name, void *arg) {
  printf("notify %s %d\n", name, strcmp(name, "post-restore") ? 0 : criu_notify_pid(arg));
  return 0;
}

static int finish(const char *what, int result) {
  printf("%s %d\n", what, result);
  return result < 0;
}

int main(int argc, char **argv) {
  if (argc < 4 || criu_init_opts() < 0) return 9;
  const int swrk = !strcmp(argv[1], "swrk");
  if (swrk) {
    criu_set_service_binary(argv[2]);
  } else {
    criu_set_service_address(argv[2]);
  }
  const char *command = argv[3];
  if (!strcmp(command, "version")) return finish("version", criu_get_version());
  if (!strcmp(command, "at-least")) return finish("at-least", criu_check_version(atoi(argv[4])));
  if (!strcmp(command, "feature")) {
    struct criu_feature_check features = {.mem_track = true, .lazy_pages = true, .pidfd_store = true};
    const int result = criu_feature_check(&features, sizeof(features));
    printf("mem_track %d\n", features.mem_track);
    return finish("feature", result);
  }
  criu_set_notify_cb(notified);
  criu_set_log_level(4);
  criu_set_log_file("libcriu.log");
  if (argc > 4) criu_set_images_dir_fd(open(argv[4], O_DIRECTORY));
  if (argc > 5) criu_set_pid(atoi(argv[5]));
  if (!strcmp(command, "check")) return finish("check", criu_check());
  if (!strcmp(command, "dump")) return finish("dump", criu_dump());
  if (!strcmp(command, "pre-dump")) return finish("pre-dump", criu_pre_dump());
  if (!strcmp(command, "restore")) return finish("restore", swrk ? criu_restore_child() : criu_restore());
  return 9;
}
