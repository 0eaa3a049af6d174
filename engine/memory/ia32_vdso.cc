// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "engine/kernel/syscalls.h"
#include "engine/kernel/x86_64/ia32.h"
#include "engine/memory/vdso.h"
#include "engine/memory/vma.h"

namespace stasis::memory {
namespace {

// A task has one vDSO, so ours goes first; from then on nothing may look at the time.
[[noreturn]] void show(const Runs& own, uint64_t at, int report) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  for (const auto& run : own) ::munmap(reinterpret_cast<void*>(run.start), run.end - run.start);
  const char mapped = kernel::map_ia32_vdso(at) ? 'y' : 'n';
  // Where ia32 is switched off at boot this is a fault, and the end.
  kernel::call_ia32_getpid();
  if (::write(report, &mapped, 1) != 1) ::_exit(1);
  while (true) ::pause();
}

class Child {
 public:
  explicit Child(pid_t pid) : pid_(pid) {}
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    ::kill(pid_, SIGKILL);
    while (::waitpid(pid_, nullptr, __WALL) < 0 && errno == EINTR) {
    }
  }

 private:
  pid_t pid_;
};

bool is_vdso(const procfs::Map& map) { return map.name == "[vdso]" || map.name.starts_with("[vvar"); }

}  // namespace

Result<OwnVdso> ia32_vdso(const procfs::Procfs& proc, std::vector<uint8_t>& text) {
  constexpr uint64_t kRoom = 64 * kernel::kPageSize;
  Runs own;
  std::vector<std::pair<uint64_t, uint64_t>> taken;
  for (const auto& map : TRY(procfs::parse_smaps(TRY(proc.text(::getpid(), "maps"))))) {
    if (is_vdso(map)) own.push_back({map.start, map.end});
    if (map.end <= kTaskSize) taken.emplace_back(map.start, map.end);
  }
  const auto at = find_hole(std::move(taken), kRoom, true);
  int ends[2];
  if (!at || ::pipe2(ends, O_CLOEXEC) < 0) return fail_sys("pipe");
  Fd in(ends[0]), out(ends[1]);
  const pid_t pid = ::fork();
  if (pid < 0) return fail_sys("fork");
  if (pid == 0) show(own, *at, out.get());
  const Child child(pid);
  out.reset();
  char mapped = 0;
  ssize_t n;
  do n = ::read(in.get(), &mapped, 1);
  while (n < 0 && errno == EINTR);
  if (n != 1)
    return fail(
        Error(Code::kKernelFeature, "this kernel does not run 32-bit code, which the images hold").about("ia32"));
  OwnVdso vdso;
  if (mapped != 'y') return vdso;
  for (const auto& map : TRY(procfs::parse_smaps(TRY(proc.text(pid, "maps"))))) {
    if (!is_vdso(map)) continue;
    vdso.parts.emplace_back(map.start - *at, map.size());
    vdso.size = map.end - *at;
    if (map.name != "[vdso]") continue;
    vdso.text_offset = map.start - *at;
    text.resize(map.size());
    TRY(kernel::vm_read(pid, map.start, text.data(), text.size()));
    vdso.text = text;
  }
  return vdso;
}

}  // namespace stasis::memory
