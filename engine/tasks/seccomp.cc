// SPDX-License-Identifier: Apache-2.0
#include "engine/tasks/seccomp.h"

#include <linux/seccomp.h>
#include <sys/syscall.h>

#include <algorithm>

#include "engine/kernel/ptrace.h"

namespace stasis::tasks {

Result<uint32_t> SeccompTable::add_chain(pid_t tid) {
  auto filters = TRY(kernel::get_seccomp_filters(tid));
  if (filters.empty()) return fail(Code::kInternal, cat("pid ", tid, " has no seccomp filter after all"));
  int64_t prev = -1;
  for (auto it = filters.begin(); it != filters.end(); ++it) {
    if (it->flags & SECCOMP_FILTER_FLAG_NEW_LISTENER)
      return fail(Error(Code::kUnsupported, cat("pid ", tid, " has a seccomp user notification listener"))
                      .about(cat("pid ", tid)));
    std::string program(it->program.begin(), it->program.end());
    auto [at, fresh] = known_.try_emplace({prev, program}, static_cast<uint32_t>(entry_.seccomp_filters_size()));
    if (fresh) {
      auto& f = *entry_.add_seccomp_filters();
      f.set_filter(program);
      if (prev >= 0) f.set_prev(static_cast<uint32_t>(prev));
      f.set_flags(static_cast<uint32_t>(it->flags));
    }
    prev = at->second;
  }
  return static_cast<uint32_t>(prev);
}

Result<void> check_seccomp(const pb::seccomp_entry& entry) {
  for (int i = 0; i < entry.seccomp_filters_size(); ++i) {
    const auto& f = entry.seccomp_filters(i);
    // A filter is always written after the one it stands on, so a chain cannot loop.
    if (f.filter().empty() || f.filter().size() % 8 || f.filter().size() / 8 > 4096 ||
        (f.has_prev() && f.prev() >= static_cast<uint32_t>(i)))
      return fail(Error(Code::kImageCorrupt, cat("seccomp.img: filter ", i, " is not valid")).about("seccomp.img"));
  }
  return {};
}

void add_seccomp_filters(remote::Batch& batch, const pb::seccomp_entry& entry, uint32_t index) {
  std::vector<uint32_t> chain{index};
  while (entry.seccomp_filters(static_cast<int>(chain.back())).has_prev())
    chain.push_back(entry.seccomp_filters(static_cast<int>(chain.back())).prev());
  std::reverse(chain.begin(), chain.end());
  for (uint32_t i : chain) {
    const auto& f = entry.seccomp_filters(static_cast<int>(i));
    struct {
      uint16_t len;
      uint16_t pad[3];
      uint64_t filter;
    } program{static_cast<uint16_t>(f.filter().size() / 8), {}, 0};
    const auto code = batch.data(f.filter().data(), f.filter().size());
    const auto prog = batch.put(program);
    batch.point(prog, 8, code);
    // TSYNC said something about other threads at install time; it leaves no trace in a filter.
    const uint32_t flags = f.flags() & (SECCOMP_FILTER_FLAG_LOG | SECCOMP_FILTER_FLAG_SPEC_ALLOW);
    batch.add(__NR_seccomp, SECCOMP_SET_MODE_FILTER, flags, prog);
    batch.must("seccomp(SET_MODE_FILTER)");
  }
}

}  // namespace stasis::tasks
