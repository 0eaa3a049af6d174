// SPDX-License-Identifier: Apache-2.0
// A program of 32-bit code, with threads and a child: registers, thread-local storage, signal frames, calls that wait,
// and all else that the kernel keeps in another form for such code. There is no 32-bit C library here, so it makes its
// system calls by itself; what live.h does for others is at the top.
typedef unsigned int u32;
typedef unsigned long long u64;

// arch/x86/entry/syscalls/syscall_32.tbl
enum {
  kExit = 1, kFork = 2, kRead = 3, kWrite = 4, kOpen = 5, kClose = 6, kWaitpid = 7, kLink = 9, kUnlink = 10,
  kGetpid = 20, kPidfdOpen = 434, kAccess = 33, kPipe = 42, kBrk = 45, kFcntl = 55, kClone = 120, kUname = 122, kPersonality = 136,
  kNanosleep = 162, kPoll = 168, kRtSigaction = 174, kRtSigprocmask = 175, kRtSigqueueinfo = 178, kSigaltstack = 186,
  kMmap2 = 192, kGettid = 224, kFutex = 240, kSetThreadArea = 243, kGetThreadArea = 244, kExitGroup = 252,
  kTimerCreate = 259, kTimerSettime = 260, kTimerGettime = 261, kClockGettime = 265, kClockNanosleep = 267, kTgkill = 270,
  kSetRobustList = 311, kGetRobustList = 312, kRseq = 386, kClockNanosleep64 = 407, kFutex64 = 422
};

static int call6(int nr, int a, int b, int c, int d, int e, int f) {
  int result;
  int args[2] = {nr, f};
  __asm__ volatile("push %%ebp\n mov 4(%%eax), %%ebp\n mov (%%eax), %%eax\n int $0x80\n pop %%ebp"
                   : "=a"(result) : "0"(args), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e) : "memory");
  return result;
}
#define A(x) ((int)(x))
#define CALL_(nr, a, b, c, d, e, f, ...) call6(nr, A(a), A(b), A(c), A(d), A(e), A(f))
#define CALL(nr, ...) CALL_(nr, ##__VA_ARGS__, 0, 0, 0, 0, 0, 0)

static int own_pid(void) { return CALL(kGetpid); }
static int own_tid(void) { return CALL(kGettid); }

void* memset(void* to, int byte, u32 size) {
  for (char* at = to; size--;) *at++ = (char)byte;
  return to;
}
void* memcpy(void* to, const void* from, u32 size) {
  char* at = to;
  for (const char* p = from; size--;) *at++ = *p++;
  return to;
}
static u32 length(const char* s) {
  u32 n = 0;
  while (s[n]) ++n;
  return n;
}
static int equal(const char* a, const char* b) {
  while (*a && *a == *b) ++a, ++b;
  return *a == *b;
}
static char* append(char* at, const char* s) {
  while (*s) *at++ = *s++;
  *at = 0;
  return at;
}
static char* append_number(char* at, int value) {
  char digits[12];
  int n = 0;
  u32 v = value < 0 ? -(u32)value : (u32)value;
  if (value < 0) *at++ = '-';
  do digits[n++] = (char)('0' + v % 10); while (v /= 10);
  while (n) *at++ = digits[--n];
  *at = 0;
  return at;
}

static const char *ready_path, *result_path;
const char* go_path;  // not static: code in assembler has their names

static int publish(const char* path, const char* text) {
  char temporary[4200];
  append_number(append(append(temporary, path), "."), own_tid());
  int fd = CALL(kOpen, temporary, 01101 /* O_WRONLY | O_CREAT | O_TRUNC */, 0644);
  if (fd < 0) return -1;
  int bad = CALL(kWrite, fd, text, length(text)) != (int)length(text);
  CALL(kClose, fd);
  int rc = bad ? -1 : CALL(kLink, temporary, path);
  CALL(kUnlink, temporary);
  return rc;
}
static void fail(int line, const char* condition, int value) {
  char text[1024];
  append_number(append(append(append(append_number(append(text, "FAIL: ia32.c:"), line), ": "), condition), ": "), value);
  publish(result_path, text);
  CALL(kExitGroup, 1);
}
#define CHECK_VALUE(condition, value) ((condition) ? (void)0 : fail(__LINE__, #condition, (int)(value)))
#define CHECK(condition) CHECK_VALUE(condition, 0)
#define MUST(result, wanted)                                                  \
  do {                                                                        \
    int must_ = (result);                                                     \
    if (must_ != (wanted)) fail(__LINE__, #result " == " #wanted, must_);     \
  } while (0)

struct timespec { int sec, nsec; };
struct timespec64 { u64 sec, nsec; };
struct user_desc { u32 number, base, limit, bits; };
struct action { void* handler; u32 flags; void* restorer; u32 mask[2]; };
struct siginfo { int signo, error, code, pid, uid, value; int rest[26]; };
struct stack { void* sp; int flags; u32 size; };
enum { kSigUsr1 = 10, kSigUsr2 = 12, kRt = 34, kSaSiginfo = 4, kSaRestorer = 0x4000000, kSaOnstack = 0x8000000 };

static u64 now_ms(void) {
  struct timespec t;
  CALL(kClockGettime, 1, &t);
  return (u64)(u32)t.sec * 1000 + (u32)t.nsec / 1000000;
}

// --- thread-local storage

struct tls { u32 word, robust[3], tid; };
static u32 main_slot;
static u32 gs_word(void) {
  u32 word;
  __asm__ volatile("mov %%gs:0, %0" : "=r"(word));
  return word;
}
static u32 fs_word(void) {
  u32 word;
  __asm__ volatile("mov %%fs:4, %0" : "=r"(word));
  return word;
}
static struct user_desc describe(u32 slot, const void* base) {
  // seg_32bit, limit_in_pages, useable
  return (struct user_desc){slot, (u32)base, 0xfffff, 1 | 1 << 4 | 1 << 6};
}

// --- threads

struct thread { struct tls tls; volatile int tid; const char* name; void (*run)(void); volatile int done; };
static int word_forever = 1, word_timed = 1;
static int pipe_int80[2], pipe_sysenter[2], pipe_handler[2], pipe_child[2], pipe_data[2], pipe_gate[2];
static u64 started;
static u32 sysinfo, sysinfo_header;

static void announce(void) { MUST(CALL(kWrite, pipe_gate[1], "x", 1), 1); }
static void lasted(void) { CHECK_VALUE(now_ms() - started >= 2990, now_ms() - started); }

static void in_read(void) {
  char byte = 0;
  announce();
  MUST(CALL(kRead, pipe_int80[0], &byte, 1), 1);
  CHECK(byte == 'i');
}
static int call_by_sysinfo(int nr, int a, int b, int c) {
  int result;
  __asm__ volatile("call *%5" : "=a"(result) : "0"(nr), "b"(a), "c"(b), "d"(c), "m"(sysinfo) : "memory");
  return result;
}
static void in_read_of_vdso(void) {
  char byte = 0;
  announce();
  if (!sysinfo) return;
  MUST(call_by_sysinfo(kRead, pipe_sysenter[0], A(&byte), 1), 1);
  CHECK(byte == 's');
}
static void in_nanosleep(void) {
  struct timespec three = {3, 0}, rest = {77, 0};
  announce();
  MUST(CALL(kNanosleep, &three, &rest), 0);
  lasted();
}
static void in_nanosleep_without_rest(void) {
  struct timespec three = {3, 0};
  announce();
  MUST(CALL(kNanosleep, &three, 0), 0);
  lasted();
}
static void in_clock_nanosleep(void) {
  struct timespec three = {3, 0}, rest = {77, 0};
  announce();
  MUST(CALL(kClockNanosleep, 1, 0, &three, &rest), 0);
  lasted();
}
static void in_clock_nanosleep64(void) {
  struct timespec64 three = {3, 0}, rest = {77, 0};
  announce();
  MUST(CALL(kClockNanosleep64, 1, 0, &three, &rest), 0);
  lasted();
}
static void in_futex(void) {
  struct timespec three = {3, 0};
  announce();
  MUST(CALL(kFutex, &word_timed, 0, 1, &three), -110 /* ETIMEDOUT */);
  lasted();
}
static void in_futex64(void) {
  struct timespec64 three = {3, 0};
  announce();
  MUST(CALL(kFutex64, &word_timed, 0, 1, &three), -110);
  lasted();
}
static void in_futex_forever(void) {
  announce();
  int result = CALL(kFutex, &word_forever, 0, 1, 0);
  CHECK_VALUE(result == 0 || result == -11 /* EAGAIN */, result);
}
static void in_poll(void) {
  struct { int fd; short events, revents; } wait = {pipe_int80[1], 2 /* POLLPRI */, 0};
  announce();
  MUST(CALL(kPoll, &wait, 1, 3000), 0);
  lasted();
}
static volatile int in_handler;
static void waiting_handler(int signal) {
  char byte = 0;
  in_handler = 1;
  announce();
  int result = CALL(kRead, pipe_handler[0], &byte, 1);
  if (result != 1 || byte != 'h' || signal != kSigUsr2) fail(__LINE__, "read in a handler", result);
  in_handler = 2;
}
// It gets a frame before the checkpoint and returns by it after the restore.
static void in_a_handler(void) {
  MUST(CALL(kTgkill, own_pid(), own_tid(), kSigUsr2), 0);
  CHECK_VALUE(in_handler == 2, in_handler);
}
// Ends while it holds a robust futex: the list begins with itself and one lock.
static u32 robust_lock[2];
static void in_robust(void) {
  struct tls* own = (struct tls*)(u32)0;
  __asm__ volatile("mov %%gs:16, %0" : "=r"(own));
  char byte = 0;
  own->robust[0] = (u32)robust_lock, own->robust[1] = 4, own->robust[2] = 0;
  robust_lock[0] = (u32)own->robust;
  robust_lock[1] = (u32)own_tid();
  MUST(CALL(kSetRobustList, own->robust, 12), 0);
  announce();
  MUST(CALL(kRead, pipe_int80[0], &byte, 1), 1);
  u32 head = 0, size = 0;
  MUST(CALL(kGetRobustList, 0, &head, &size), 0);
  CHECK(head == (u32)own->robust && size == 12);
}

#define THREADS(X) \
  X(in_read) X(in_read_of_vdso) X(in_nanosleep) X(in_nanosleep_without_rest) X(in_clock_nanosleep) \
  X(in_clock_nanosleep64) X(in_futex) X(in_futex64) X(in_futex_forever) X(in_poll) X(in_a_handler) X(in_robust)
#define COUNT(function) +1
enum { kThreads = 0 THREADS(COUNT) };
#define ENTRY(function) {.name = #function, .run = function},
static struct thread threads[kThreads] = {THREADS(ENTRY)};

static void thread_main(struct thread* t) {
  t->run();
  CHECK(gs_word() == ((u32)t ^ 0x5a5a));
  t->done = 1;
  CALL(kExit, 0);
}

static void start(struct thread* t) {
  u32 size = 65536;
  char* memory = (char*)CALL(kMmap2, 0, size, 3, 0x22, -1, 0);
  CHECK_VALUE((u32)memory < 0xfffff000, memory);
  u32* top = (u32*)(memory + size) - 4;
  top[0] = (u32)thread_main, top[1] = (u32)t;
  t->tls.word = (u32)t ^ 0x5a5a, t->tls.tid = (u32)&t->tls;
  struct user_desc desc = describe(main_slot, &t->tls);
  // VM, FS, FILES, SIGHAND, THREAD, SYSVSEM, SETTLS, PARENT_SETTID, CHILD_CLEARTID
  int flags = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000 | 0x80000 | 0x100000 | 0x200000, result;
  __asm__ volatile("int $0x80\n test %%eax, %%eax\n jnz 1f\n pop %%eax\n call *%%eax\n ud2\n1:"
                   : "=a"(result) : "0"(kClone), "b"(flags), "c"(top), "d"(&t->tid), "S"(&desc), "D"(&t->tid) : "memory");
  CHECK_VALUE(result > 0, result);
}

static void join(struct thread* t) {
  for (int tid; (tid = t->tid) != 0;) CALL(kFutex, &t->tid, 0, tid, 0);
  if (!t->done) fail(__LINE__, t->name, 0);
}

// A process whose first thread has exited.
static int pipe_alone[2];
static void in_alone(void) {
  char byte = 0;
  announce();
  MUST(CALL(kRead, pipe_alone[0], &byte, 1), 1);
  CHECK(byte == 'a' && gs_word() == ((u32)&threads[0] ^ 0x5a5a));
  CALL(kExitGroup, 9);
}
static int threads_have_pidfds(void) {  // Linux 6.9; without it such a process is refused
  int fd = CALL(kPidfdOpen, own_pid(), 0200 /* PIDFD_THREAD */);
  if (fd >= 0) CALL(kClose, fd);
  return fd >= 0;
}
static int make_leaderless(void) {
  int child = CALL(kFork);
  if (child != 0) return child;
  threads[0].run = in_alone;
  start(&threads[0]);
  CALL(kExit, 3);
  return 0;
}

// --- signals

static char alternate[16384];
static volatile int taken, taken_at, values[3];
static volatile int on_alternate;
void restore_rt(void);
__asm__("restore_rt: mov $173, %eax\n int $0x80\n");
static void handler(int signal, struct siginfo* info, void* context) {
  char here;
  (void)context;
  on_alternate = &here >= alternate && &here < alternate + sizeof alternate;
  taken = signal;
  if (taken_at < 3) values[taken_at++] = info->value;
}
static void set_action(int signal, void* run, u32 flags, void* restorer) {
  struct action a = {run, flags, restorer, {0x80000000, 0x40}};
  MUST(CALL(kRtSigaction, signal, &a, 0, 8), 0);
}
static void check_action(int signal, void* run, u32 flags, void* restorer) {
  struct action a = {0};
  MUST(CALL(kRtSigaction, signal, 0, &a, 8), 0);
  CHECK(a.handler == run && a.flags == flags && a.restorer == restorer && a.mask[0] == 0x80000000 && a.mask[1] == 0x40);
}
static void mask(int how, int signal) {
  u32 set[2] = {0, 0};
  set[(signal - 1) / 32] = 1u << (signal - 1) % 32;
  MUST(CALL(kRtSigprocmask, how, set, 0, 8), 0);
}
static void queue(int signal, int value) {
  struct siginfo info = {signal, 0, -1 /* SI_QUEUE */, own_pid(), 0, value, {0}};
  MUST(CALL(kRtSigqueueinfo, own_pid(), signal, &info), 0);
}

// --- vDSO: clock_gettime by its name

static int (*find_clock(void))(int, struct timespec*) {
  const char* base = (const char*)sysinfo_header;
  if (!base) return 0;
  const u32* head = (const u32*)base;
  const char* part = base + head[7];
  const u32 *symbols = 0, *hash = 0;
  const char* names = 0;
  for (int i = 0; i < ((const unsigned short*)base)[22]; ++i, part += 32) {
    if (((const u32*)part)[0] != 2 /* PT_DYNAMIC */) continue;
    for (const u32* d = (const u32*)(base + ((const u32*)part)[1]); d[0]; d += 2) {
      if (d[0] == 6) symbols = (const u32*)(base + d[1]);
      if (d[0] == 5) names = base + d[1];
      if (d[0] == 4) hash = (const u32*)(base + d[1]);
    }
  }
  if (!symbols || !names || !hash) return 0;
  for (u32 i = 0; i < hash[1]; ++i)
    if (equal(names + symbols[4 * i], "__vdso_clock_gettime")) return (int (*)(int, struct timespec*))(base + symbols[4 * i + 1]);
  return 0;
}
static void check_vdso(void) {
  if (!sysinfo) return;
  MUST(call_by_sysinfo(kGetpid, 0, 0, 0), own_pid());
  int (*clock)(int, struct timespec*) = find_clock();
  if (!clock) return;
  struct timespec t = {0, 0}, before, after;
  CALL(kClockGettime, 1, &before);
  MUST(clock(1, &t), 0);
  CALL(kClockGettime, 1, &after);
  CHECK_VALUE(t.sec >= before.sec && t.sec <= after.sec, t.sec);
}

// --- registers: waits for GO with values in all that a 32-bit program has

u32 general[4];
static unsigned char fpu_before[512] __attribute__((aligned(16))), fpu_after[512] __attribute__((aligned(16)));
struct timespec nap = {0, 10000000};
static double eight[8] = {1.5, -2.25, 3.125, 1e300, -1e-300, 6.0, 7.75, 8.5};
static void wait_for_go(void) {
  unsigned char xmm[128];
  for (int i = 0; i < 128; ++i) xmm[i] = (unsigned char)(i * 7 + 3);
  u32 control = 0x1fa0 | 0x2000;   // MXCSR: rounding down, one flag
  unsigned short cw = 0x0f7f;      // x87: towards zero
  for (int i = 0; i < 8; ++i) __asm__ volatile("fldl %0" : : "m"(eight[i]));
  __asm__ volatile(
      "ldmxcsr %1\n fldcw %2\n"
      "movups (%0), %%xmm0\n movups 16(%0), %%xmm1\n movups 32(%0), %%xmm2\n movups 48(%0), %%xmm3\n"
      "movups 64(%0), %%xmm4\n movups 80(%0), %%xmm5\n movups 96(%0), %%xmm6\n movups 112(%0), %%xmm7\n"
      : : "r"(xmm), "m"(control), "m"(cw));
  __asm__ volatile("fxsave %0" : "=m"(fpu_before));
  __asm__ volatile(
      "push %%ebp\n mov $0x11223344, %%esi\n mov $0xdeadbeef, %%edi\n mov $0x80000001, %%ebp\n std\n"
      "1: mov go_path, %%ebx\n xor %%ecx, %%ecx\n mov $33, %%eax\n int $0x80\n test %%eax, %%eax\n jz 2f\n"
      "mov $nap, %%ebx\n xor %%ecx, %%ecx\n mov $162, %%eax\n int $0x80\n jmp 1b\n"
      "2: mov %%esi, general\n mov %%edi, general+4\n mov %%ebp, general+8\n pushfl\n popl general+12\n cld\n pop %%ebp"
      : : : "eax", "ebx", "ecx", "edx", "esi", "edi", "memory");
  __asm__ volatile("fxsave %0\n fninit" : "=m"(fpu_after));
  CHECK(general[0] == 0x11223344 && general[1] == 0xdeadbeef && general[2] == 0x80000001);
  CHECK(general[3] & 0x400);
  // Without the places of the last x87 instruction and operand, which processors do not keep alike.
  for (u32 i = 0; i < 288; ++i)
    if (i < 8 || i >= 24) CHECK_VALUE(fpu_before[i] == fpu_after[i], i);
}

static u32 own_tls[8];
static u32 rseq_area[8] __attribute__((aligned(32)));
static int timer;

static void make_tls(void) {
  own_tls[0] = 0xabcdef01;
  own_tls[5] = 0x12345678;
  struct user_desc desc = describe(~0u, own_tls);
  MUST(CALL(kSetThreadArea, &desc), 0);
  main_slot = desc.number;
  __asm__ volatile("mov %0, %%gs" : : "r"((unsigned short)(main_slot * 8 + 3)));
  desc = describe(~0u, own_tls + 4);
  MUST(CALL(kSetThreadArea, &desc), 0);
  __asm__ volatile("mov %0, %%fs" : : "r"((unsigned short)(desc.number * 8 + 3)));
}

static int make_child(void) {
  int child = CALL(kFork);
  if (child != 0) return child;
  char byte = 0;
  announce();
  MUST(CALL(kRead, pipe_child[0], &byte, 1), 1);
  CHECK(byte == 'c' && gs_word() == 0xabcdef01);
  CALL(kExitGroup, 7);
  return 0;
}

static void check_memory(char* map, u32* heap) {
  for (int i = 0; i < 16; ++i) CHECK(map[i * 4096] == (char)(i + 1));
  CHECK(heap[0] == 0x600df00d && (u32)CALL(kBrk, 0) == (u32)heap + 8192);
  MUST(CALL(kBrk, (u32)heap + 16384), A((u32)heap + 16384));
  heap[3000] = 1;
  u32 more = (u32)CALL(kMmap2, 0, 4096, 3, 0x22, -1, 0);
  CHECK_VALUE(more < 0xfffff000, more);
  *(u32*)more = 1;
}

static void check_signals(void) {
  struct stack s = {0};
  MUST(CALL(kSigaltstack, 0, &s), 0);
  CHECK(s.sp == alternate && s.size == sizeof alternate && s.flags == 0);
  check_action(kSigUsr1, handler, kSaSiginfo | kSaRestorer | kSaOnstack, restore_rt);
  check_action(kSigUsr2, waiting_handler, 0, 0);
  CHECK(taken == 0);
  mask(1 /* SIG_UNBLOCK */, kRt);
  CHECK_VALUE(taken == kRt && taken_at == 2, taken_at);
  CHECK_VALUE(values[0] == 0x11 && values[1] == (int)0x81234567, values[1]);
  MUST(CALL(kTgkill, own_pid(), own_tid(), kSigUsr1), 0);
  CHECK(taken == kSigUsr1 && on_alternate && gs_word() == 0xabcdef01);
}

static void check_timer(void) {
  struct timespec left[2] = {{0, 0}, {0, 0}}, once[2] = {{0, 0}, {0, 1000000}};
  MUST(CALL(kTimerGettime, timer, left), 0);
  CHECK_VALUE(left[1].sec > 3000 && left[1].sec <= 3600, left[1].sec);
  taken_at = 0, taken = 0;
  MUST(CALL(kTimerSettime, timer, 0, once, 0), 0);
  while (!taken) CALL(kNanosleep, &nap, 0);
  CHECK_VALUE(taken == kRt + 1 && values[0] == (int)0x89abcdef, values[0]);
}

static int check_rest(const int* files) {
  char machine[6 * 65];
  MUST(CALL(kPersonality, -1), 8);
  MUST(CALL(kUname, machine), 0);
  CHECK(equal(machine + 4 * 65, "i686"));
  CHECK((CALL(kFcntl, files[0], 3) & 0100000) == 0 && (CALL(kFcntl, files[1], 3) & 0100000) != 0);
  MUST(CALL(kRseq, rseq_area, 32, 0, 0x53053053), -16 /* EBUSY: as it is */);
  CHECK_VALUE(rseq_area[1] < 0x10000, rseq_area[1]);
  char data[8] = {0};
  MUST(CALL(kRead, pipe_data[0], data, 8), 4);
  CHECK(data[0] == 'd' && data[3] == 'a');
  return 0;
}

__attribute__((used)) static void program(u32* stack) {
  char** argv = (char**)(stack + 1);
  ready_path = argv[1], go_path = argv[2], result_path = argv[3];
  u32* at = stack + 1 + stack[0] + 1;
  while (*at) ++at;
  for (++at; at[0]; at += 2) {
    if (at[0] == 32) sysinfo = at[1];
    if (at[0] == 33) sysinfo_header = at[1];
  }
  started = now_ms();
  MUST(CALL(kPersonality, 8 /* PER_LINUX32 */), 0);
  int* pipes[] = {pipe_int80, pipe_sysenter, pipe_handler, pipe_child, pipe_data, pipe_gate, pipe_alone};
  for (int i = 0; i < 7; ++i) MUST(CALL(kPipe, pipes[i]), 0);
  MUST(CALL(kWrite, pipe_data[1], "data", 4), 4);
  const int files[2] = {CALL(kOpen, argv[0], 0, 0), CALL(kOpen, argv[0], 0100000 /* O_LARGEFILE */, 0)};
  CHECK(files[0] >= 0 && files[1] >= 0);
  make_tls();
  struct stack s = {alternate, 0, sizeof alternate};
  MUST(CALL(kSigaltstack, &s, 0), 0);
  set_action(kSigUsr1, handler, kSaSiginfo | kSaRestorer | kSaOnstack, restore_rt);
  set_action(kRt, handler, kSaSiginfo | kSaRestorer, restore_rt);
  set_action(kRt + 1, handler, kSaSiginfo | kSaRestorer, restore_rt);
  set_action(kSigUsr2, waiting_handler, 0, 0);
  mask(0 /* SIG_BLOCK */, kRt);
  queue(kRt, 0x11);
  queue(kRt, (int)0x81234567);
  struct { int value, signo, notify, pad[13]; } event = {(int)0x89abcdef, kRt + 1, 0, {0}};
  struct timespec hour[2] = {{0, 0}, {3600, 0}};
  MUST(CALL(kTimerCreate, 1, &event, &timer), 0);
  MUST(CALL(kTimerSettime, timer, 0, hour, 0), 0);
  MUST(CALL(kRseq, rseq_area, 32, 0, 0x53053053), 0);
  char* map = (char*)CALL(kMmap2, 0, 65536, 3, 0x22, -1, 0);
  for (int i = 0; i < 16; ++i) map[i * 4096] = (char)(i + 1);
  u32* heap = (u32*)CALL(kBrk, 0);
  MUST(CALL(kBrk, (u32)heap + 8192), A((u32)heap + 8192));
  heap[0] = 0x600df00d;
  int child = make_child(), leaderless = stack[0] > 4 || !threads_have_pidfds() ? 0 : make_leaderless();  // ia32 READY GO RESULT [all-leaders-live]
  for (int i = 0; i < kThreads; ++i) start(&threads[i]);
  char byte;
  for (int i = 0; i < kThreads + 1 + (leaderless != 0); ++i) MUST(CALL(kRead, pipe_gate[0], &byte, 1), 1);
  check_vdso();
  MUST(publish(ready_path, "ready"), 0);

  wait_for_go();
  CHECK_VALUE(gs_word() == 0xabcdef01 && fs_word() == 0x12345678, gs_word());
  check_vdso();
  check_memory(map, heap);
  check_signals();
  check_timer();
  check_rest(files);
  word_forever = 0;
  CALL(kFutex, &word_forever, 1 /* FUTEX_WAKE */, 1);
  MUST(CALL(kWrite, pipe_int80[1], "ii", 2), 2);
  MUST(CALL(kWrite, pipe_sysenter[1], "s", 1), 1);
  MUST(CALL(kWrite, pipe_handler[1], "h", 1), 1);
  MUST(CALL(kWrite, pipe_child[1], "c", 1), 1);
  MUST(CALL(kWrite, pipe_alone[1], "a", 1), 1);
  for (int i = 0; i < kThreads; ++i) join(&threads[i]);
  CHECK_VALUE(robust_lock[1] & 0x40000000 /* FUTEX_OWNER_DIED */, robust_lock[1]);
  int status = 0;
  MUST(CALL(kWaitpid, child, &status, 0), child);
  CHECK_VALUE(status == 7 << 8, status);
  if (leaderless) {
    MUST(CALL(kWaitpid, leaderless, &status, 0), leaderless);
    CHECK_VALUE(status == 9 << 8, status);
  }
  CALL(kExitGroup, publish(result_path, "ok") ? 1 : 0);
}

__asm__(".globl _start\n_start: mov %esp, %eax\n and $-16, %esp\n sub $12, %esp\n push %eax\n call program\n ud2\n");
