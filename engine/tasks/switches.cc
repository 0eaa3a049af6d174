// SPDX-License-Identifier: Apache-2.0
#include "engine/tasks/switches.h"

#include <linux/membarrier.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "engine/base/io.h"
#include "engine/kernel/syscalls.h"

namespace stasis::tasks {
namespace {

using remote::Batch;

constexpr int kGetIoFlusher = 58, kSetIoFlusher = 57, kGetMdwe = 66, kSetMdwe = 65, kGetMemoryMerge = 68,
              kSetMemoryMerge = 67;
constexpr uint32_t kGetRegistrations = 512;  // MEMBARRIER_CMD_GET_REGISTRATIONS, since Linux 6.3
constexpr uint32_t kBarriers[] = {MEMBARRIER_CMD_PRIVATE_EXPEDITED, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE,
                                  MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ};  // each registration is the next bit
constexpr int kArchGetCpuid = 0x1011, kArchSetCpuid = 0x1012;
constexpr uint64_t kSpecControllable = 1, kSpecEnabled = 2;
constexpr uint32_t kMceDefault = 2;
constexpr uint64_t kUtilClampMin = 0x20, kUtilClampMax = 0x40, kKeepPolicyAndParams = 0x18;
constexpr uint32_t kUtilMost = 1024;

bool is_real_time(uint32_t policy) { return policy == SCHED_FIFO || policy == SCHED_RR; }

// The line of /proc/PID/status, empty if this kernel has none such.
std::string status_line(const std::string& text, std::string_view name) {
  for (auto line : lines(text))
    if (line.starts_with(name)) return std::string(trim(line.substr(name.size())));
  return {};
}

Result<void> dump_scheduling(const Thread& t, pb::task_extra& extra) {
  const auto attr = TRY(kernel::get_sched_attr(t.tid));
  if (attr.flags != 0) extra.set_sched_flags(attr.flags);
  if (attr.policy == SCHED_DEADLINE) {
    extra.mutable_more()->set_deadline_runtime(attr.runtime);
    extra.mutable_more()->set_deadline(attr.deadline);
    extra.mutable_more()->set_deadline_period(attr.period);
  }
  // A real-time task has a minimum that nobody has set; a kernel without clamps says 0 and 0.
  if (attr.util_min != 0 && !is_real_time(attr.policy)) extra.mutable_more()->set_uclamp_min(attr.util_min);
  if (attr.util_max != 0 && attr.util_max != kUtilMost) extra.mutable_more()->set_uclamp_max(attr.util_max);
  return {};
}

void dump_process_files(const procfs::Procfs& proc, const Process& p, pb::task_extra& extra) {
  if (const auto text = proc.text(p.pid, "coredump_filter"))
    if (const auto filter = parse_int<uint32_t>(trim(*text), 16)) extra.set_coredump_filter(*filter);
  // "/autogroup-123 nice 5"
  if (const auto text = proc.text(p.pid, "autogroup")) {
    const auto f = fields(trim(*text));
    const auto nice = f.size() == 3 ? parse_int<int32_t>(f[2]) : std::nullopt;
    if (nice.value_or(0) != 0) extra.mutable_more()->set_autogroup_nice(*nice);
  }
}

}  // namespace

void find_switch_obstacles(const procfs::Procfs& proc, const Process& p, std::vector<Error>& obstacles) {
  auto refuse = [&](std::string what) {
    obstacles.push_back(
        Error(Code::kUnsupported, cat("pid ", p.pid, " (", p.stat.comm, ") ", what)).about(cat("pid ", p.pid)));
  };
  const auto tids = proc.threads(p.pid);
  if (!tids) return;
  for (pid_t tid : *tids) {
    const auto text = proc.text(p.pid, cat("task/", tid, "/status"));
    if (!text) continue;
    if (const auto features = status_line(*text, "x86_Thread_features:"); !features.empty())
      return refuse(cat("has a thread ", tid, " with the processor features \"", features, "\""));
    const auto mask = status_line(*text, "untag_mask:");
    if (!mask.empty() && mask != "0xffffffffffffffff") return refuse("masks addresses (ARCH_ENABLE_TAGGED_ADDR)");
    if (kernel::core_cookie(tid) != 0) return refuse(cat("has a thread ", tid, " with a core scheduling cookie"));
  }
}

SwitchQuestions::SwitchQuestions(Batch& batch) : tsc_(batch.space(4)) {
  got_tsc_ = batch.add(__NR_prctl, PR_GET_TSC, tsc_);
  mce_ = batch.add(__NR_prctl, PR_MCE_KILL_GET, 0, 0, 0, 0);
  cpuid_ = batch.add(__NR_arch_prctl, kArchGetCpuid, 0);
  // For which it takes CAP_SYS_RESOURCE, as to switch it on.
  flusher_ = batch.add(__NR_prctl, kGetIoFlusher, 0, 0, 0, 0);
  for (int i = 0; i < kFeatures; ++i) speculation_[i] = batch.add(__NR_prctl, PR_GET_SPECULATION_CTRL, i, 0, 0, 0);
  mdwe_ = batch.add(__NR_prctl, kGetMdwe, 0, 0, 0, 0);
  merge_ = batch.add(__NR_prctl, kGetMemoryMerge, 0, 0, 0, 0);
}

BarrierQuestions::BarrierQuestions(Batch& batch) {
  all_ = batch.add(__NR_membarrier, kGetRegistrations, 0, 0);
  for (size_t i = 0; i < std::size(kBarriers); ++i) single_[i] = batch.add(__NR_membarrier, kBarriers[i], 0, 0);
}

// Where the kernel does not list them, one that is not registered is refused; that of the global one nobody can tell.
uint32_t BarrierQuestions::read(const Batch& batch) const {
  if (!batch.failed(all_)) return static_cast<uint32_t>(batch.result(all_));
  uint32_t out = 0;
  for (size_t i = 0; i < std::size(kBarriers); ++i)
    if (!batch.failed(single_[i])) out |= kBarriers[i] << 1;
  return out;
}

void add_barriers(Batch& batch, uint32_t registrations) {
  for (uint32_t bit = 1; bit != 0; bit <<= 1) {
    if (!(registrations & bit)) continue;
    batch.add(__NR_membarrier, bit, 0, 0);
    batch.must(cat("membarrier(", hex(bit), ")"));
  }
}

Result<void> SwitchQuestions::read(const Batch& batch, const procfs::Procfs& proc, const Process& p, const Thread& t,
                                   pb::task_extra& extra) const {
  const bool leader = t.ntid == p.npid;
  auto value = [&](size_t call) { return batch.failed(call) ? 0 : static_cast<uint64_t>(batch.result(call)); };
  if (!batch.failed(got_tsc_) && batch.get<uint32_t>(tsc_) == PR_TSC_SIGSEGV) extra.set_tsc_sigsegv(true);
  if (!batch.failed(mce_) && value(mce_) != kMceDefault) extra.set_mce_kill(static_cast<uint32_t>(value(mce_)));
  if (!batch.failed(cpuid_) && value(cpuid_) == 0) extra.set_cpuid_fault(true);
  if (value(flusher_) == 1) extra.set_io_flusher(true);
  for (const size_t call : speculation_) extra.add_speculation_ctrl(value(call));
  if (leader && value(mdwe_) != 0) extra.set_mdwe(static_cast<uint32_t>(value(mdwe_)));
  if (leader && value(merge_) == 1) extra.set_memory_merge(true);
  if (leader) dump_process_files(proc, p, extra);
  return dump_scheduling(t, extra);
}

void add_switches(Batch& batch, const pb::task_extra& extra, bool leader) {
  auto add = [&](const char* name, auto... args) {
    batch.add(__NR_prctl, args...);
    batch.must(cat("prctl(", name, ")"));
  };
  if (extra.has_mce_kill()) add("PR_MCE_KILL", PR_MCE_KILL, PR_MCE_KILL_SET, extra.mce_kill(), 0, 0);
  if (extra.io_flusher()) add("PR_SET_IO_FLUSHER", kSetIoFlusher, 1, 0, 0, 0);
  for (int i = 0; i < std::min(extra.speculation_ctrl_size(), SwitchQuestions::kFeatures); ++i) {
    const uint64_t state = extra.speculation_ctrl(i) & ~kSpecControllable;
    if ((extra.speculation_ctrl(i) & kSpecControllable) && state != kSpecEnabled && state != 0)
      add("PR_SET_SPECULATION_CTRL", PR_SET_SPECULATION_CTRL, i, state, 0, 0);
  }
  if (leader && extra.memory_merge()) add("PR_SET_MEMORY_MERGE", kSetMemoryMerge, 1, 0, 0, 0);
  // Nothing is mapped for execution any more.
  if (leader && extra.mdwe() != 0) add("PR_SET_MDWE", kSetMdwe, extra.mdwe(), 0, 0, 0);
  if (extra.tsc_sigsegv()) add("PR_SET_TSC", PR_SET_TSC, PR_TSC_SIGSEGV);
  if (extra.cpuid_fault()) {
    batch.add(__NR_arch_prctl, kArchSetCpuid, 0);
    batch.must("arch_prctl(ARCH_SET_CPUID)");
  }
}

Result<void> restore_outer_switches(const procfs::Procfs& proc, pid_t tid, const pb::task_extra& extra, bool leader) {
  const auto& more = extra.more();
  const bool clamped = more.has_uclamp_min() || more.has_uclamp_max();
  if (extra.sched_flags() != 0 || more.has_deadline() || clamped) {
    auto attr = TRY(kernel::get_sched_attr(tid));
    attr.flags = extra.sched_flags();
    if (more.has_deadline()) {
      attr.policy = SCHED_DEADLINE, attr.nice = 0, attr.priority = 0;
      attr.runtime = more.deadline_runtime(), attr.deadline = more.deadline(), attr.period = more.deadline_period();
    }
    TRY_CTX(kernel::set_sched_attr(tid, attr), "scheduling of pid ", tid);
    if (clamped) {
      attr.flags = kKeepPolicyAndParams | kUtilClampMin | kUtilClampMax | extra.sched_flags();
      attr.util_min = more.uclamp_min(), attr.util_max = more.has_uclamp_max() ? more.uclamp_max() : kUtilMost;
      TRY_CTX(kernel::set_sched_attr(tid, attr), "utilisation clamps of pid ", tid);
    }
  }
  if (!leader) return {};
  auto write = [&](const char* file, const std::string& text) {
    if (auto r = write_file_at(proc.fd(), cat(tid, "/", file), text); !r)
      log::warning("pid ", tid, ": ", file, " cannot be set to ", text, ": ", r.error().message(), ", ignoring");
  };
  if (extra.has_coredump_filter()) {
    const auto now = read_file_at(proc.fd(), cat(tid, "/coredump_filter"));
    if (!now || parse_int<uint32_t>(trim(*now), 16) != extra.coredump_filter())
      write("coredump_filter", cat(extra.coredump_filter()));
  }
  if (more.has_autogroup_nice()) write("autogroup", cat(more.autogroup_nice()));
  return {};
}

}  // namespace stasis::tasks
