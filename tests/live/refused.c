// SPDX-License-Identifier: Apache-2.0
// `refused READY GO RESULT KIND`: holds one object that cannot be checkpointed yet and keeps counting. The dump must
// name the object and leave the program as it was.
#include "live.h"
#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif
#include <pthread.h>
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <linux/io_uring.h>
#include <linux/rtnetlink.h>
#include <linux/userfaultfd.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <sys/fanotify.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/ptrace.h>
#include <sys/rseq.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/un.h>

static int held = -1;
static void hold(int fd) {
  CHECK(fd >= 0);
  CHECK(fcntl(fd, F_DUPFD, 33) == 33, "the runner looks for descriptor 33");
  close(fd);
  held = 33;
}
static void hold_if(int fd) {
  if (fd < 0) _exit(77);  // not in this kernel
  hold(fd);
}
static void child_in(int flags) {  // a child in a namespace of its own
  struct live_gate gate = live_gate_open();
  if (fork() == 0) {
    CHECK(unshare(flags) == 0);
    if (flags & CLONE_NEWPID && fork()) {
      live_gate_pass(gate);
      pause();
    }
    if (!(flags & CLONE_NEWPID)) live_gate_pass(gate);
    for (;;) pause();
  }
  live_gate_await(gate, 1);
}

static void h_unix_outside(void) {  // connected to a child that is not of the tree any more
  int ends[2];
  CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
  pid_t middle = fork();
  if (middle == 0) {
    if (fork() == 0)
      for (;;) pause();
    _exit(0);
  }
  live_reap_ok(middle);
  close(ends[1]);
  hold(ends[0]);
}
static void h_unix_unread_request(void) {  // sent before anybody has accepted the connection
  struct sockaddr_un address = {AF_UNIX, "\0stasis-live-refused"};
  int fd = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
  CHECK(bind(fd, (void *)&address, sizeof(sa_family_t) + 20) == 0 && listen(fd, 1) == 0);
  CHECK(connect(client, (void *)&address, sizeof(sa_family_t) + 20) == 0 && send(client, "x", 1, 0) == 1);
  hold(client);
}
static void h_unix_out_of_band(void) {
  int ends[2];
  CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
  if (send(ends[1], "x", 1, MSG_OOB) != 1) _exit(77);
  hold(ends[0]);
}
static int listening(struct sockaddr_in *address) {
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  socklen_t size = sizeof *address;
  *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  CHECK(bind(fd, (void *)address, size) == 0 && listen(fd, 1) == 0 && getsockname(fd, (void *)address, &size) == 0);
  return fd;
}
static int connected(const struct sockaddr_in *address) {
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  CHECK(connect(fd, (void *)address, sizeof *address) == 0);
  return fd;
}
static void h_tcp_error(void) {  // reset, and SO_ERROR not read
  struct sockaddr_in address;
  struct linger hard = {1, 0};
  int server = listening(&address), client = connected(&address), peer = accept(server, NULL, NULL);
  CHECK(setsockopt(peer, SOL_SOCKET, SO_LINGER, &hard, sizeof hard) == 0);
  close(peer), close(server);
  hold(client);
}
static void h_tcp_urgent(void) {
  struct sockaddr_in address;
  int server = listening(&address), client = connected(&address), peer = accept(server, NULL, NULL);
  CHECK(send(client, "!", 1, MSG_OOB) == 1);
  hold(peer);
}
static void h_unaccepted_connection(void) {
  struct sockaddr_in address;
  int server = listening(&address);
  connected(&address);
  hold(server);
}
static void h_packet_ring(void) {
  struct tpacket_req ring = {4096, 1, 2048, 2};
  int fd = socket(AF_PACKET, SOCK_RAW, 0);
  CHECK(setsockopt(fd, 263 /* SOL_PACKET */, PACKET_RX_RING, &ring, sizeof ring) == 0);
  hold(fd);
}
static void h_mptcp_socket(void) { hold_if(socket(AF_INET, SOCK_STREAM, 262)); }
static void h_alg_socket(void) { hold_if(socket(AF_ALG, SOCK_SEQPACKET, 0)); }
static void h_foreign_socket(void) {  // of a network namespace that the task has left
  int own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
  CHECK(own >= 0 && unshare(CLONE_NEWNET) == 0);
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  CHECK(setns(own, CLONE_NEWNET) == 0);
  close(own);
  hold(fd);
}
static void h_netlink_protocol(void) { hold(socket(AF_NETLINK, SOCK_RAW, 12)); }
static void h_netlink_queue(void) {
  struct { struct nlmsghdr head; struct rtgenmsg what; } request = {{sizeof request, RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, 1, 0}, {AF_UNSPEC}};
  int fd = socket(AF_NETLINK, SOCK_RAW, 0);
  CHECK(send(fd, &request, sizeof request, 0) == sizeof request);
  hold(fd);
}
static void h_pidfd_outside(void) { hold(syscall(SYS_pidfd_open, getppid(), 0)); }
static void h_owner_outside(void) {
  int ends[2];
  CHECK(pipe(ends) == 0 && fcntl(ends[0], F_SETOWN, getppid()) == 0);
  hold(ends[0]);
}
static void h_io_uring(void) {
  struct io_uring_params parameters = {};
  int fd = syscall(SYS_io_uring_setup, 4, &parameters);
  if (fd < 0) _exit(77);  // not in this kernel
  hold(fd);
}
static void h_inotify_events(void) {
  int fd = inotify_init1(0);
  CHECK(inotify_add_watch(fd, live_path("."), IN_CREATE) >= 0);
  close(open(live_path("created"), O_CREAT | O_WRONLY, 0600));
  hold(fd);
}
static void h_inotify_on_deleted(void) {
  int fd = inotify_init1(IN_NONBLOCK), file = open(live_path("watched"), O_CREAT | O_WRONLY, 0600);
  CHECK(file >= 0 && unlink(live_path("watched")) == 0);
  char self[64];
  snprintf(self, sizeof self, "/proc/self/fd/%d", file);
  CHECK(inotify_add_watch(fd, self, IN_MODIFY) >= 0);
  hold(fd);
}
static void h_fanotify_events(void) {
  int fd = fanotify_init(FAN_CLASS_NOTIF, O_RDONLY);
  if (fd < 0) _exit(77);
  int file = open(live_path("changed"), O_CREAT | O_WRONLY, 0600);
  CHECK(fanotify_mark(fd, FAN_MARK_ADD, FAN_MODIFY, AT_FDCWD, live_path("changed")) == 0);
  CHECK(write(file, "x", 1) == 1);
  hold(fd);
}
static void h_fanotify_permission(void) {
  int fd = fanotify_init(FAN_CLASS_CONTENT, O_RDONLY);
  close(open(live_path("asked"), O_CREAT | O_WRONLY, 0600));
  if (fd < 0 || fanotify_mark(fd, FAN_MARK_ADD, FAN_OPEN_PERM, AT_FDCWD, live_path("asked")) < 0) _exit(77);
  hold(fd);
}
static void h_kernel_log(void) { hold_if(open("/dev/kmsg", O_RDONLY)); }
static void h_perf_event(void) {
  struct perf_event_attr attributes = {.type = PERF_TYPE_SOFTWARE, .size = sizeof attributes, .config = PERF_COUNT_SW_TASK_CLOCK};
  hold(syscall(SYS_perf_event_open, &attributes, 0, -1, -1, 0));
}
static void h_bpf_map(void) {
  union bpf_attr attributes = {.map_type = BPF_MAP_TYPE_RINGBUF, .max_entries = 4096};
  hold_if(syscall(SYS_bpf, BPF_MAP_CREATE, &attributes, sizeof attributes));
}
static void h_bpf_map_in_use(void) {  // r0 = the map, which makes it the program's; r0 = 0; exit
  union bpf_attr attributes = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1};
  int map = syscall(SYS_bpf, BPF_MAP_CREATE, &attributes, sizeof attributes);
  if (map < 0) _exit(77);
  struct bpf_insn code[] = {{BPF_LD | BPF_DW | BPF_IMM, 0, BPF_PSEUDO_MAP_FD, 0, map}, {}, {BPF_ALU64 | BPF_MOV | BPF_K}, {BPF_JMP | BPF_EXIT}};
  memset(&attributes, 0, sizeof attributes);
  attributes.prog_type = BPF_PROG_TYPE_SOCKET_FILTER, attributes.insn_cnt = 4;
  attributes.insns = (uintptr_t)code, attributes.license = (uintptr_t)"GPL";
  int program = syscall(SYS_bpf, BPF_PROG_LOAD, &attributes, sizeof attributes), ends[2];
  if (program < 0) _exit(77);
  CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends) == 0);
  CHECK(setsockopt(ends[0], SOL_SOCKET, 50 /* SO_ATTACH_BPF */, &program, sizeof program) == 0);
  close(program);
  hold(map);
}
static void h_bpf_program(void) {
  struct bpf_insn code[] = {{BPF_ALU64 | BPF_MOV | BPF_K}, {BPF_JMP | BPF_EXIT}};
  union bpf_attr attributes = {.prog_type = BPF_PROG_TYPE_SOCKET_FILTER, .insn_cnt = 2, .insns = (uintptr_t)code, .license = (uintptr_t)"GPL"};
  hold_if(syscall(SYS_bpf, BPF_PROG_LOAD, &attributes, sizeof attributes));
}
static void h_fuse(void) { hold_if(open("/dev/fuse", O_RDWR)); }
static void h_proc_file_of_the_dead(void) {
  char path[64];
  pid_t pid = fork();
  if (pid == 0) for (;;) pause();
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  int fd = open(path, O_RDONLY);
  CHECK(kill(pid, SIGKILL) == 0 && waitpid(pid, NULL, 0) == pid);
  hold(fd);
}
static void h_fs_context(void) { hold(syscall(SYS_fsopen, "tmpfs", 0)); }
static void h_detached_mount(void) { hold(syscall(SYS_open_tree, AT_FDCWD, "/tmp", 1 /* OPEN_TREE_CLONE */)); }
static void h_landlock(void) {
  uint64_t attributes[1] = {1};
  hold(syscall(SYS_landlock_create_ruleset, attributes, sizeof attributes, 0));
}
static void enter_domain(void) {  // whose rules allow everything but to make sockets
  uint64_t attributes[1] = {1 << 9 /* LANDLOCK_ACCESS_FS_MAKE_SOCK */};
  int rules = syscall(SYS_landlock_create_ruleset, attributes, sizeof attributes, 0);
  if (rules < 0) _exit(77);
  CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && syscall(SYS_landlock_restrict_self, rules, 0) == 0);
  close(rules);
}
static void h_landlock_domain(void) {  // a child that has changed its user and dropped all
  struct live_gate gate = live_gate_open();
  if (fork() == 0) {
    CHECK(setresgid(1234, 1234, 1234) == 0 && setresuid(1234, 1234, 1234) == 0);
    enter_domain();
    live_gate_pass(gate);
    for (;;) pause();
  }
  live_gate_await(gate, 1);
}
static pthread_barrier_t both_ready;
static void with_thread(void *(*body)(void *)) {
  pthread_t thread;
  CHECK(pthread_barrier_init(&both_ready, NULL, 2) == 0 && pthread_create(&thread, NULL, body, NULL) == 0);
  pthread_barrier_wait(&both_ready);
}
static void *thread_in_domain(void *unused) {
  enter_domain();
  pthread_barrier_wait(&both_ready);
  while (1) pause();
  return unused;
}
static void h_landlock_thread(void) { with_thread(thread_in_domain); }
static void h_message_queue(void) {
  int fd = mq_open("/stasis-live-refused", O_RDWR | O_CREAT, 0600, NULL);
  CHECK(mq_unlink("/stasis-live-refused") == 0);
  hold(fd);
}
static void h_message_queue_notify(void) {
  struct sigevent signal = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 7};
  CHECK(unshare(CLONE_NEWIPC) == 0);
  int fd = mq_open("/stasis-live-refused", O_RDWR | O_CREAT, 0600, NULL), copy = fd;
  CHECK(fcntl(fd, F_DUPFD, 33) == 33);  // closing any descriptor would end it
  CHECK(mq_notify(copy, &signal) == 0);
  held = 33;
}
static void h_foreign_namespace(void) {
  int own = open("/proc/self/ns/uts", O_RDONLY | O_CLOEXEC);
  CHECK(own >= 0 && unshare(CLONE_NEWUTS) == 0);
  int fd = open("/proc/self/ns/uts", O_RDONLY);
  CHECK(setns(own, CLONE_NEWUTS) == 0);
  close(own);
  hold(fd);
}
static void h_foreign_terminal(void) {  // its master is with a child that is not of the tree any more
  struct live_gate gate = live_gate_open();
  int master = posix_openpt(O_RDWR | O_NOCTTY);
  CHECK(master >= 0 && unlockpt(master) == 0);
  hold(open(ptsname(master), O_RDWR | O_NOCTTY));
  pid_t middle = fork();
  if (middle == 0) {
    if (fork() == 0) {
      close(held);
      live_gate_pass(gate);
      for (;;) pause();
    }
    _exit(0);
  }
  close(master);
  live_reap_ok(middle);
  live_gate_await(gate, 1);
}
static void h_lease_broken(void) {
  const char *path = live_path("leased");
  close(open(path, O_WRONLY | O_CREAT, 0600));
  int fd = open(path, O_RDONLY);
  signal(SIGIO, SIG_IGN);
  CHECK(fd >= 0 && fcntl(fd, F_SETLEASE, F_RDLCK) == 0);
  CHECK(open(path, O_WRONLY | O_NONBLOCK) < 0 && errno == EWOULDBLOCK);
  hold(fd);
}
static void h_deleted_large_file(void) {
  const char *path = live_path("deleted");
  int fd = open(path, O_RDWR | O_CREAT, 0600);
  CHECK(fd >= 0 && posix_fallocate(fd, 0, 2 << 20) == 0 && unlink(path) == 0);
  hold(fd);
}
static void h_sysv_shm(void) {
  int id = shmget(IPC_PRIVATE, 4096, 0600);
  CHECK(id >= 0);
  char *at = shmat(id, NULL, 0);
  CHECK(at != (void *)-1);
  at[0] = 1;
  CHECK(shmctl(id, IPC_RMID, NULL) == 0);
}
static void h_deleted_large_mapping(void) {
  const char *path = live_path("mapped");
  int fd = open(path, O_RDWR | O_CREAT, 0600);
  CHECK(fd >= 0 && posix_fallocate(fd, 0, 2 << 20) == 0);
  CHECK(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) != MAP_FAILED);
  close(fd);
  CHECK(unlink(path) == 0);
}
static void h_memory_shared_outside(void) {  // with a child that is not of the tree any more
  char *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(at != MAP_FAILED);
  pid_t group = getpid(), middle = fork();
  if (middle == 0) {
    if (fork() == 0) {
      at[0] = 1;
      for (;;) pause();
    }
    _exit(0);
  }
  live_reap_ok(middle);
  CHECK(getpgid(0) == group);
}
static void h_semaphore_undo(void) {  // in an ipc namespace of its own
  struct sembuf up = {0, 1, SEM_UNDO};
  int set = semget(IPC_PRIVATE, 1, IPC_CREAT | 0600);
  CHECK(set >= 0 && semop(set, &up, 1) == 0);
}
static void *denies_itself_key_zero(void *unused) {  // and sleeps with its registers alone
  CHECK(syscall(SYS_rseq, (char *)__builtin_thread_pointer() + __rseq_offset, 32, RSEQ_FLAG_UNREGISTER, RSEQ_SIG) == 0);
  pthread_barrier_wait(&both_ready);
  __asm__ volatile(".byte 0x0f, 0x01, 0xef\n 1: movl $34, %%eax\n syscall\n jmp 1b"  // wrpkru, pause(2)
                   : : "a"(1), "c"(0), "d"(0) : "memory", "r11");
  return unused;
}
static void h_key_zero_denied(void) {
  if (syscall(SYS_pkey_alloc, 0, 0) < 0) _exit(77);
  with_thread(denies_itself_key_zero);
  for (int i = 0; i < 10; i++) live_pause();
}
static void h_userfaultfd(void) {
  struct uffdio_api api = {.api = UFFD_API};
  int fd = syscall(SYS_userfaultfd, O_CLOEXEC);
  if (fd < 0) _exit(77);
  CHECK(ioctl(fd, UFFDIO_API, &api) == 0);
  char *at = mmap(NULL, 16384, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  struct uffdio_register range = {.range = {(uintptr_t)at, 16384}, .mode = UFFDIO_REGISTER_MODE_MISSING};
  CHECK(at != MAP_FAILED && ioctl(fd, UFFDIO_REGISTER, &range) == 0);
}
static void h_aio(void) {
  unsigned long context = 0;
  if (syscall(SYS_io_setup, 4, &context) < 0) _exit(77);
}
static void h_sealed_mapping(void) {
  char *at = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED || syscall(462 /* mseal */, at, 4096, 0) < 0) _exit(77);
}
static void h_io_uring_rings(void) {  // mapped, and no descriptor any more
  struct io_uring_params parameters = {};
  int fd = syscall(SYS_io_uring_setup, 4, &parameters);
  if (fd < 0) _exit(77);
  CHECK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_SQ_RING) != MAP_FAILED);
  close(fd);
}
static void h_device_memory(void) {
  int fd = open("/dev/mem", O_RDONLY);
  if (fd < 0 || mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED) _exit(77);
  close(fd);
}
static void h_user_namespace(void) { child_in(CLONE_NEWUSER); }
static void h_root_in_user_namespace(void) { CHECK(unshare(CLONE_NEWUSER) == 0); }
static void h_nested_pid_namespace(void) { child_in(CLONE_NEWPID); }
static void h_nested_mount_namespace(void) { child_in(CLONE_NEWNS); }
static void h_nested_net_namespace(void) { child_in(CLONE_NEWNET); }
static void h_nested_uts_namespace(void) { child_in(CLONE_NEWUTS); }
static void h_nested_time_namespace(void) { child_in(CLONE_NEWTIME); }
static void h_time_for_children(void) { CHECK(unshare(CLONE_NEWTIME) == 0); }
static void h_traced(void) {  // the tracer is part of the tree, and its tracee runs
  struct live_gate gate = live_gate_open();
  pid_t tracee = fork();
  if (tracee == 0) for (;;) pause();
  if (fork() == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    CHECK(ptrace(PTRACE_SEIZE, tracee, NULL, NULL) == 0);
    live_gate_pass(gate);
    for (;;) pause();
  }
  live_gate_await(gate, 1);
}
static void h_traced_and_stopped(void) {  // the tracee is in a stop of its tracer's
  struct live_gate gate = live_gate_open();
  pid_t tracee = fork();
  if (tracee == 0) for (;;) pause();
  if (fork() == 0) {
    int status;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    CHECK(ptrace(PTRACE_SEIZE, tracee, NULL, NULL) == 0 && ptrace(PTRACE_INTERRUPT, tracee, NULL, NULL) == 0);
    CHECK(waitpid(tracee, &status, __WALL) == tracee && WIFSTOPPED(status));
    live_gate_pass(gate);
    for (;;) pause();
  }
  live_gate_await(gate, 1);
}
static int sleeps(void *unused) {
  (void)unused;
  while (1) pause();
  return 0;
}
static volatile char dispatch = 0;  // SYSCALL_DISPATCH_FILTER_ALLOW
static void h_syscall_dispatch(void) { CHECK(prctl(59 /* PR_SET_SYSCALL_USER_DISPATCH */, 1, 0, 0, &dispatch) == 0); }
static void h_files_of_a_sibling(void) {
  pid_t pid = fork();
  if (pid == 0) {
    if (syscall(SYS_clone, CLONE_PARENT | CLONE_FILES | SIGCHLD, 0, 0, 0, 0) > 0) live_ready();
    sleeps(NULL);
  }
  CHECK(pid > 0);
  while (access(live_ready_path, F_OK)) live_pause();
}
static void *leaves_files(void *unused) {
  if (unshare(CLONE_FILES) == 0) live_ready();
  sleeps(unused);
  return NULL;
}
static void h_files_of_a_thread(void) {
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, leaves_files, NULL) == 0);
  while (access(live_ready_path, F_OK)) live_pause();
}
static void h_shared_memory_space(void) {
  CHECK(clone(sleeps, malloc(65536) + 65536, CLONE_VM | SIGCHLD, NULL) > 0);
}
static void h_vfork_child_that_stays(void) {
  pid_t pid = vfork();  // the child borrows our memory; its parent, this very task, sleeps in the kernel
  if (pid == 0) {
    live_ready();
    live_wait();
    _exit(0);
  }
  CHECK(pid > 0);
}
static const struct { const char *name; void (*make)(void); } kKinds[] = {
#define KIND(name) {#name, h_##name}
    KIND(unix_outside), KIND(unix_unread_request), KIND(unix_out_of_band), KIND(tcp_error), KIND(tcp_urgent),
    KIND(unaccepted_connection), KIND(packet_ring), KIND(mptcp_socket), KIND(alg_socket), KIND(foreign_socket),
    KIND(netlink_queue), KIND(netlink_protocol), KIND(pidfd_outside), KIND(owner_outside), KIND(io_uring), KIND(message_queue), KIND(message_queue_notify),
    KIND(foreign_namespace), KIND(foreign_terminal), KIND(deleted_large_file), KIND(inotify_events), KIND(inotify_on_deleted),
    KIND(fanotify_events), KIND(fanotify_permission), KIND(kernel_log), KIND(perf_event), KIND(bpf_map), KIND(bpf_map_in_use), KIND(bpf_program), KIND(fuse), KIND(proc_file_of_the_dead), KIND(fs_context), KIND(detached_mount), KIND(landlock), KIND(landlock_domain), KIND(landlock_thread), KIND(lease_broken),
    KIND(semaphore_undo), KIND(key_zero_denied),
    KIND(sysv_shm), KIND(deleted_large_mapping),
    KIND(memory_shared_outside), KIND(userfaultfd), KIND(aio), KIND(sealed_mapping), KIND(io_uring_rings), KIND(device_memory),
    KIND(user_namespace), KIND(root_in_user_namespace), KIND(nested_pid_namespace), KIND(nested_mount_namespace),
    KIND(nested_net_namespace), KIND(nested_uts_namespace), KIND(nested_time_namespace), KIND(time_for_children), KIND(traced), KIND(traced_and_stopped), KIND(files_of_a_sibling), KIND(syscall_dispatch), KIND(files_of_a_thread),
    KIND(shared_memory_space), KIND(vfork_child_that_stays)};

int main(int argc, char **argv) {
  live_init(argc, argv);
  const char *kind = argc > 4 ? argv[4] : "";
  size_t i = 0;
  while (i < sizeof kKinds / sizeof *kKinds && strcmp(kKinds[i].name, kind)) i++;
  CHECK(i < sizeof kKinds / sizeof *kKinds, "no kind %s", kind);
  setpgid(0, 0);
  kKinds[i].make();
  struct stat before, after;
  if (held >= 0) CHECK(fstat(held, &before) == 0);
  if (access(live_ready_path, F_OK)) live_ready();
  unsigned long counter = 0;
  while (access(live_go_path, F_OK)) {
    counter++;
    live_pause();
  }
  CHECK(held < 0 || (fstat(held, &after) == 0 && before.st_ino == after.st_ino), "the object has changed");
  if (live_publish(live_result_path, "ok")) _exit(1);
  signal(SIGTERM, SIG_IGN);
  kill(0, SIGKILL);  // helpers of this program, all in its own process group, and itself
  pause();
}
