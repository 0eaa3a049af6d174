// SPDX-License-Identifier: Apache-2.0
#include "engine/memory/premap.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

#include "engine/base/io.h"
#include "engine/kernel/syscalls.h"
#include "engine/memory/vma.h"

namespace stasis::memory {
namespace {

using kernel::kPageSize;
using tasks::PageSource;
using tasks::Snapshot;
using tasks::TaskImage;

bool is_private(const pb::vma_entry& e) {
  return (e.flags() & (MAP_PRIVATE | MAP_HUGETLB)) == MAP_PRIVATE && !is_vdso_group(e);
}

// The mapping of the task with this address in it, or null.
const pb::vma_entry* mapping_at(const TaskImage& task, uint64_t address) {
  const auto& vmas = task.mm.vmas();
  const auto at =
      std::lower_bound(vmas.begin(), vmas.end(), address, [](const auto& e, uint64_t a) { return e.end() <= a; });
  return at != vmas.end() && at->start() <= address ? &*at : nullptr;
}

Result<Runs> read_runs(const pb::inherited_pages& entry, const TaskImage& task) {
  auto bad = [&](const char* why) {
    return fail(Error(Code::kImageCorrupt, cat("inherited pages of pid ", entry.pid(), " ", why)).about("manifest"));
  };
  if (entry.runs_size() % 2) return bad("are no pairs");
  Runs runs;
  for (int i = 0; i < entry.runs_size(); i += 2) {
    const uint64_t start = entry.runs(i), count = entry.runs(i + 1);
    if (start % kPageSize || count == 0 || count > (kTaskSize - std::min(start, kTaskSize)) / kPageSize)
      return bad("are no pages");
    if (!runs.empty() && start < runs.back().end) return bad("are out of order");
    for (uint64_t at = start; at < start + count * kPageSize;) {
      const auto* e = mapping_at(task, at);
      if (!e || !is_private(*e)) return bad("are in no private mapping");
      at = e->end();
    }
    append(runs, {start, start + count * kPageSize});
  }
  return runs;
}

// The sources of `runs`, every page of which must have one.
Result<void> add_sources(const std::vector<PageSource>& from, const Runs& runs, std::vector<PageSource>& out) {
  for (Run run : runs) {
    auto at = std::lower_bound(from.begin(), from.end(), run.start,
                               [](const PageSource& s, uint64_t address) { return s.end <= address; });
    for (; run.start < run.end; ++at) {
      if (at == from.end() || at->start > run.start)
        return fail(Error(Code::kImageCorrupt, cat("no contents for the inherited page at ", hex(run.start)))
                        .about("manifest"));
      const uint64_t end = std::min(run.end, at->end);
      out.push_back({run.start, end, at->pages_id, at->offset + (run.start - at->start)});
      run.start = end;
    }
  }
  return {};
}

TaskImage* find_task(Snapshot& s, uint32_t pid) {
  const auto at = std::ranges::find_if(s.tasks, [&](const auto& t) { return t.node.pid() == pid; });
  return at == s.tasks.end() || at->zombie ? nullptr : &*at;
}

}  // namespace

Result<void> load_inherited(Snapshot& s) {
  if (s.images->manifest())
    for (const auto& entry : s.images->manifest()->inherited_pages()) {
      TaskImage* task = find_task(s, entry.pid());
      if (!task || !task->inherited.empty() || !find_task(s, task->node.ppid()))
        return fail(Error(Code::kImageCorrupt, cat("inherited pages of pid ", entry.pid())).about("manifest"));
      task->inherited = TRY(read_runs(entry, *task));
    }
  // Parents come first.
  for (auto& task : s.tasks) {
    if (task.zombie) continue;
    Runs own;
    for (const auto& run : task.pagemap.runs) {
      const Run range{run.vaddr, run.vaddr + run.nr_pages * kPageSize};
      append(own, range);
      task.sources.push_back({range.start, range.end, static_cast<uint32_t>(task.pagemap.pages_id), run.file_offset});
    }
    if (const Runs elsewhere = subtract(task.inherited, own); !elsewhere.empty()) {
      TRY(add_sources(find_task(s, task.node.ppid())->sources, elsewhere, task.sources));
      std::ranges::sort(task.sources, {}, &PageSource::start);
    }
  }
  return {};
}

namespace {

// The kernel would have made the child's mapping out of the parent's.
bool fits(const pb::vma_entry& child, const pb::vma_entry& parent) {
  constexpr uint32_t kKind = kVmaFilePrivate | kVmaAnonPrivate;
  return child.start() >= parent.start() && child.end() <= parent.end() &&
         (child.status() & kKind) == (parent.status() & kKind) && child.flags() == parent.flags() &&
         child.shmid() == parent.shmid() &&
         (!is_file_backed(child) || child.pgoff() == parent.pgoff() + (child.start() - parent.start()));
}

Runs part_of(const Runs& runs, const pb::vma_entry& e) { return intersect(runs, {{e.start(), e.end()}}); }

struct Planner {
  const Snapshot& s;
  const tasks::TreePlan& tree;
  const Runs& taken;
  std::vector<Premap> plans{s.tasks.size()};
  std::vector<Runs> there{s.tasks.size()};  // pages that may be in a task's mappings when its children are born

  // The task whose stub forks, directly or by helpers, that of `node`.
  int creator(const tasks::TreeNode& node) const {
    int at = node.creator;
    while (at >= 0 && tree.nodes[static_cast<size_t>(at)].task < 0) at = tree.nodes[static_cast<size_t>(at)].creator;
    return at < 0 ? -1 : tree.nodes[static_cast<size_t>(at)].task;
  }

  void add(int task, int parent) {
    const auto& child = s.tasks[static_cast<size_t>(task)];
    const auto& from = s.tasks[static_cast<size_t>(parent)];
    auto& above = plans[static_cast<size_t>(parent)];
    for (const auto& e : child.mm.vmas()) {
      const Runs needed = part_of(child.inherited, e);
      const auto* p = needed.empty() ? nullptr : mapping_at(from, e.start());
      if (!p || !fits(e, *p)) continue;
      if (part_of(above.from_creator, *p).empty() && std::ranges::find(above.own, p) == above.own.end()) {
        if (!part_of(taken, *p).empty()) continue;
        above.own.push_back(p);
      }
      above.fill = unite(above.fill, needed);
      append(plans[static_cast<size_t>(task)].from_creator, {e.start(), e.end()});
    }
  }

  void finish(size_t task, int parent) {
    auto& plan = plans[task];
    const auto& inherited = s.tasks[task].inherited;
    if (parent >= 0) there[task] = intersect(there[static_cast<size_t>(parent)], plan.from_creator);
    const Runs right = intersect(inherited, plan.from_creator);
    plan.fill = subtract(plan.fill, right);
    plan.ready = unite(right, plan.fill);
    plan.stale = subtract(there[task], plan.ready);
    there[task] = unite(there[task], plan.fill);
    for (const auto* e : plan.own) plan.kept = unite(plan.kept, {{e->start(), e->end()}});
    plan.kept = unite(plan.kept, plan.from_creator);
  }
};

}  // namespace

std::vector<Premap> plan_premap(const Snapshot& s, const tasks::TreePlan& tree, const Runs& taken) {
  Planner planner{s, tree, taken};
  std::vector<int> creators(s.tasks.size(), -1);
  for (const auto& node : tree.nodes) {
    if (node.task < 0) continue;
    const auto& task = s.tasks[static_cast<size_t>(node.task)];
    const int from = planner.creator(node);
    if (from < 0 || task.zombie || s.tasks[static_cast<size_t>(from)].zombie) continue;
    creators[static_cast<size_t>(node.task)] = from;
    if (s.tasks[static_cast<size_t>(from)].node.pid() == task.node.ppid()) planner.add(node.task, from);
  }
  // Nodes come after their creators.
  for (const auto& node : tree.nodes)
    if (node.task >= 0) planner.finish(static_cast<size_t>(node.task), creators[static_cast<size_t>(node.task)]);
  return std::move(planner.plans);
}

namespace {

Result<void> read_pages(int fd, Run run, uint64_t offset) {
  while (run.start < run.end) {
    const ssize_t n = ::pread(fd, reinterpret_cast<void*>(run.start), run.end - run.start, static_cast<off_t>(offset));
    if (n <= 0) return fail_sys(Code::kImageCorrupt, "read pages for", hex(run.start));
    run.start += static_cast<uint64_t>(n), offset += static_cast<uint64_t>(n);
  }
  return {};
}

}  // namespace

Result<void> premap(const TaskImage& task, const Premap& premap, const std::map<uint32_t, int>& file,
                    const std::map<uint32_t, int>& pages, Runs& held) {
  for (const auto& run : subtract(held, premap.from_creator))
    if (::munmap(reinterpret_cast<void*>(run.start), run.end - run.start) < 0)
      return fail_sys("munmap", hex(run.start));
  for (const auto* e : premap.own) {
    const bool anonymous = !is_file_backed(*e);
    const int flags = static_cast<int>(e->flags()) & (MAP_PRIVATE | MAP_GROWSDOWN | MAP_NORESERVE);
    const void* at = ::mmap(reinterpret_cast<void*>(e->start()), e->end() - e->start(), PROT_READ | PROT_WRITE,
                            flags | MAP_FIXED_NOREPLACE | (anonymous ? MAP_ANONYMOUS : 0),
                            anonymous ? -1 : file.at(static_cast<uint32_t>(e->shmid())),
                            anonymous ? 0 : static_cast<off_t>(e->pgoff()));
    if (at != reinterpret_cast<void*>(e->start())) return fail_sys("mmap", hex(e->start()));
  }
  std::vector<PageSource> sources;
  TRY(add_sources(task.sources, premap.fill, sources));
  for (const auto& source : sources)
    TRY(read_pages(pages.at(source.pages_id), {source.start, source.end}, source.offset));
  held = premap.kept;
  return {};
}

}  // namespace stasis::memory
