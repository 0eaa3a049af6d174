// SPDX-License-Identifier: Apache-2.0
// Floating point state across a busy wait: SSE and AVX registers, mxcsr, the x87 stack and its control word.
// One stretch of assembly, so that nothing else uses the registers in between.
#include "live.h"

static volatile int go;
static void poke(int s) { (void)s; go = 1; }

int main(int argc, char **argv) {
  live_init(argc, argv);
  unsigned mxcsr = 0x1f80 | (3u << 13) | (1u << 15), mxcsr_now = 0;  // round toward zero, flush to zero
  unsigned short control = 0x027f, control_now = 0;                   // 53-bit precision
  long double pushed = 1.25L, popped = 0;
  unsigned char in[16][32], out[16][32];
  for (int r = 0; r < 16; r++)
    for (int i = 0; i < 32; i++) in[r][i] = (unsigned char)(r * 37 + i + 1);
  int avx = __builtin_cpu_supports("avx");
  memset(out, 0, sizeof out);

  // The child tells us by a signal handler that changes `go` in memory; the kernel saves and restores
  // vector registers around it, as it must around our checkpoint.
  signal(SIGUSR1, poke);
  pid_t self = getpid(), messenger = fork();
  CHECK(messenger >= 0);
  if (messenger == 0) {
    live_ready();
    live_wait();
    CHECK(kill(self, SIGUSR1) == 0);
    _exit(0);
  }
#define AVX_LOAD(n) "vmovdqu " #n "*32(%[in]), %%ymm" #n "\n"
#define AVX_STORE(n) "vmovdqu %%ymm" #n ", " #n "*32(%[out])\n"
#define SSE_LOAD(n) "movdqu " #n "*32(%[in]), %%xmm" #n "\n"
#define SSE_STORE(n) "movdqu %%xmm" #n ", " #n "*32(%[out])\n"
#define ALL(m) m(0) m(1) m(2) m(3) m(4) m(5) m(6) m(7) m(8) m(9) m(10) m(11) m(12) m(13) m(14) m(15)
#define CLOBBERS "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", \
                 "xmm12", "xmm13", "xmm14", "xmm15", "cc", "st"
#define SPIN "1: pause\n cmpl $0, %[go]\n je 1b\n"
#define BODY(load, store)                                                                                       \
  __asm__ volatile("fldcw %[cw]\n fldt %[pushed]\n ldmxcsr %[mx]\n" ALL(load) SPIN ALL(store)                    \
                   "stmxcsr %[mxnow]\n fnstcw %[cwnow]\n fstpt %[popped]\n fninit\n"                               \
                   : [mxnow] "=m"(mxcsr_now), [cwnow] "=m"(control_now), [popped] "=m"(popped)                      \
                   : [in] "r"(in), [out] "r"(out), [go] "m"(go), [cw] "m"(control), [pushed] "m"(pushed), [mx] "m"(mxcsr) \
                   : CLOBBERS)
  if (avx) BODY(AVX_LOAD, AVX_STORE);
  else BODY(SSE_LOAD, SSE_STORE);
  unsigned standard = 0x1f80;
  __asm__ volatile("ldmxcsr %0" : : "m"(standard));

  for (int r = 0; r < 16; r++) CHECK(memcmp(in[r], out[r], avx ? 32 : 16) == 0, "vector register %d", r);
  CHECK((mxcsr_now & ~0x3fu) == mxcsr, "mxcsr %#x -> %#x", mxcsr, mxcsr_now);
  CHECK(control_now == control, "x87 control word %#x -> %#x", control, control_now);
  CHECK(popped == pushed, "x87 stack");
  live_reap_ok(messenger);
  live_ok();
}
