// SPDX-License-Identifier: Apache-2.0
#include "engine/memory/vma.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "engine/kernel/syscalls.h"
#include "engine/memory/shared.h"

namespace stasis::memory {
namespace {

// VmFlags (fs/proc/task_mmu.c show_smap_vma_flags) that mean something we cannot rebuild yet.
struct Refused {
  const char* flag;
  const char* what;
};
constexpr Refused kRefused[] = {
    {"io", "device memory (VM_IO)"},
    {"pf", "device memory (VM_PFNMAP)"},
    {"um", "a range registered with userfaultfd"},
    {"uw", "a range registered with userfaultfd"},
    {"ui", "a range registered with userfaultfd"},
    {"ss", "a shadow stack"},
    {"sl", "a sealed mapping (mseal)"},
};

// VmFlags that madvise(2) set, as CRIU's bit numbers: 1 << MADV_*.
struct Advice {
  const char* flag;
  int madv;
};
constexpr Advice kAdvice[] = {{"sr", MADV_SEQUENTIAL}, {"rr", MADV_RANDOM},    {"dc", MADV_DONTFORK},
                              {"dd", MADV_DONTDUMP},   {"mg", MADV_MERGEABLE}, {"hg", MADV_HUGEPAGE},
                              {"nh", MADV_NOHUGEPAGE}, {"wf", MADV_WIPEONFORK}};

std::string describe(const procfs::Map& map) {
  return cat(hex(map.start), "-", hex(map.end), map.name.empty() ? "" : " ", map.name);
}

bool on_shmem(const MapContext& context, const procfs::Map& map) {
  return map.dev_major == context.shmem_major && map.dev_minor == context.shmem_minor && map.inode != 0;
}

// Huge pages that no mounted hugetlbfs holds.
bool is_anonymous_huge(const procfs::Map& map) { return map.flag("ht") && map.name.starts_with("/anon_hugepage"); }

// "[anon_shmem:...]" is one that was given a name, prctl(2) PR_SET_VMA_ANON_NAME.
bool is_shared_anonymous(const MapContext& context, const procfs::Map& map) {
  if (is_anonymous_huge(map)) return map.shared;
  return map.shared && on_shmem(context, map) &&
         (map.name.starts_with("/dev/zero") || map.name.starts_with("[anon_shmem:"));
}

bool is_memfd(const MapContext& context, const procfs::Map& map) {
  return map.name.starts_with("/memfd:") && (on_shmem(context, map) || map.flag("ht"));
}

// The inode is the id of the segment: the first of an ipc namespace has 0.
bool is_sysv(const MapContext& context, const procfs::Map& map) {
  const bool shmem = map.dev_major == context.shmem_major && map.dev_minor == context.shmem_minor;
  return map.shared && map.name.starts_with("/SYSV") && (shmem || map.flag("ht"));
}

bool is_vvar(const std::string& name) { return name.starts_with("[vvar"); }

// What kind it is, or why it cannot be carried over.
std::optional<std::string> refuse(const MapContext& context, const procfs::Map& map) {
  for (const auto& r : kRefused)
    if (map.flag(r.flag)) return r.what;
  if (is_shared_anonymous(context, map) || is_anonymous_huge(map)) return std::nullopt;
  if (is_sysv(context, map)) {
    if (context.own_ipc) return std::nullopt;
    return "System V shared memory of the host's ipc namespace, which others may change or remove meanwhile";
  }
  if (is_memfd(context, map)) return std::nullopt;
  if (map.flag("ht")) return "a file of a hugetlbfs that is mounted";
  if (map.name.starts_with("/[aio]")) return "an AIO context";
  if (map.name.starts_with("anon_inode:")) return map.name;
  if (map.name.starts_with("socket:")) return "a packet socket ring";
  if (map.inode == 0 && map.shared) return "shared anonymous memory";
  if (map.inode != 0 && !map.name.starts_with("/")) return cat("a mapping of ", map.name);
  if (map.inode == 0 && map.name.starts_with("[") && map.name != "[heap]" && map.name != "[stack]" &&
      !map.name.starts_with("[anon:") && !map.name.starts_with("[stack:"))
    return cat("a mapping of kind ", map.name);
  return std::nullopt;
}

// The kernel maps it anew.
std::optional<std::string> refuse_special(const procfs::Map& map) {
  if (map.protection_key.value_or(0) != 0) return "the vDSO with a protection key";
  return std::nullopt;
}

uint32_t status_of(const MapContext& context, const procfs::Map& map) {
  if (is_shared_anonymous(context, map)) return kVmaRegular | kVmaAnonShared;
  if (map.name == "[vdso]") return kVmaRegular | kVmaVdso | kVmaAnonPrivate;
  if (is_vvar(map.name)) return kVmaRegular | kVmaVvar | kVmaAnonPrivate;
  if (is_sysv(context, map)) return kVmaRegular | kVmaAnonShared | kVmaSysvipc;
  if (is_memfd(context, map)) return kVmaRegular | kVmaMemfd | (map.shared ? kVmaFileShared : kVmaFilePrivate);
  if (is_anonymous_huge(map)) return kVmaRegular | kVmaAnonPrivate;
  if (map.inode != 0) return kVmaRegular | (map.shared ? kVmaFileShared : kVmaFilePrivate);
  if (map.name == "[heap]") return kVmaRegular | kVmaHeap | kVmaAnonPrivate;
  if (map.name == "[stack]" || map.flag("gd")) return kVmaRegular | kVmaStack | kVmaAnonPrivate;
  return kVmaRegular | kVmaAnonPrivate;
}

}  // namespace

Result<MapContext> map_context(const procfs::Procfs& proc, bool own_ipc) {
  void* at = ::mmap(nullptr, kernel::kPageSize, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) return fail_sys("mmap of shared memory");
  auto text = proc.text(::getpid(), "maps");
  ::munmap(at, kernel::kPageSize);
  for (const auto& map : TRY(procfs::parse_smaps(TRY(std::move(text)))))
    if (map.start <= reinterpret_cast<uint64_t>(at) && map.end > reinterpret_cast<uint64_t>(at))
      return MapContext{map.dev_major, map.dev_minor, own_ipc};
  return fail(Code::kInternal, "a mapping of our own is not in /proc/self/maps");
}

std::vector<Vma> classify(const MapContext& context, const std::vector<procfs::Map>& maps, pid_t pid,
                          std::vector<Error>& obstacles) {
  std::vector<Vma> out;
  for (const auto& map : maps) {
    if (map.name == "[vsyscall]") continue;
    const bool special = map.name == "[vdso]" || is_vvar(map.name);
    if (auto why = special ? refuse_special(map) : refuse(context, map)) {
      obstacles.push_back(Error(Code::kUnsupportedMemory, cat("pid ", pid, " maps ", *why, ": ", describe(map)))
                              .about(cat("pid ", pid, " ", describe(map))));
      continue;
    }
    Vma vma;
    vma.map = map;
    auto& e = vma.entry;
    e.set_start(map.start);
    e.set_end(map.end);
    e.set_status(status_of(context, map));
    vma.file_backed = (e.status() & (kVmaFilePrivate | kVmaFileShared)) != 0;
    const bool sysv = is_sysv(e);
    vma.shared_object = is_shared_anonymous(e);
    e.set_pgoff(vma.file_backed || vma.shared_object || sysv ? map.offset : 0);
    e.set_shmid(sysv ? map.inode : 0);  // which the kernel makes the id of the segment
    if (sysv) e.set_fdflags(map.flag("mw") ? O_RDWR : O_RDONLY);
    e.set_prot((map.read ? PROT_READ : 0) | (map.write ? PROT_WRITE : 0) | (map.exec ? PROT_EXEC : 0));
    uint32_t flags = map.shared ? MAP_SHARED : map.flag("dp") ? kMapDroppable : MAP_PRIVATE;
    if (is_anonymous_huge(map)) flags |= huge_flags(map.page_kb * 1024);
    if (!vma.file_backed) flags |= MAP_ANONYMOUS;
    if (map.flag("gd")) flags |= MAP_GROWSDOWN;
    if (map.flag("lo")) flags |= MAP_LOCKED;
    if (map.flag("nr")) flags |= MAP_NORESERVE;
    e.set_flags(flags);
    e.set_fd(-1);
    uint64_t advice = 0;
    if (!special)
      for (const auto& a : kAdvice)
        if (map.flag(a.flag) && !(map.flag("dp") && (a.madv == MADV_WIPEONFORK || a.madv == MADV_DONTDUMP)))
          advice |= uint64_t{1} << a.madv;
    if (advice) e.set_madv(advice);
    vma.readable = map.read;
    vma.has_contents = !map.shared && !is_vvar(map.name);
    out.push_back(std::move(vma));
  }
  return out;
}

void add_extras(const Vma& vma, pb::memory_extra& extra) {
  const auto& map = vma.map;
  std::string_view name = map.name;
  bool named = false;
  for (std::string_view prefix : {"[anon:", "[anon_shmem:"})
    if (name.starts_with(prefix) && name.ends_with("]")) {
      name = name.substr(prefix.size(), name.size() - prefix.size() - 1);
      named = true;
      break;
    }
  const uint32_t key = map.protection_key.value_or(0);
  if (!named && !map.flag("lf") && key == 0) return;
  auto& out = *extra.add_vmas();
  out.set_start(map.start);
  if (named) out.set_name(std::string(name));
  if (map.flag("lf")) out.set_lock_on_fault(true);
  if (key) out.set_protection_key(key);
}

Result<void> check_extra(const pb::mm_entry& mm, const pb::memory_extra& extra) {
  auto bad = [&](uint64_t at, const char* why) {
    return fail(Error(Code::kImageCorrupt, cat("manifest: memory of pid ", extra.pid(), " at ", hex(at), " ", why)));
  };
  std::set<uint64_t> starts;
  for (const auto& e : mm.vmas()) starts.insert(e.start());
  for (const auto& vma : extra.vmas()) {
    if (!starts.contains(vma.start())) return bad(vma.start(), "is no mapping");
    if (vma.name().size() > 79 || vma.name().find('\0') != std::string::npos) return bad(vma.start(), "has a bad name");
  }
  auto e = mm.vmas().begin();
  uint64_t last = 0;
  for (const auto& guard : extra.guards()) {
    if (guard.start() % kernel::kPageSize || guard.end() % kernel::kPageSize || guard.start() >= guard.end() ||
        guard.start() < last)
      return bad(guard.start(), "is no range of guard pages");
    last = guard.end();
    while (e != mm.vmas().end() && e->end() <= guard.start()) ++e;
    // A range may go on in the next mapping.
    for (uint64_t at = guard.start(); at < guard.end(); at = e->end(), ++e)
      if (e == mm.vmas().end() || e->start() > at || is_vdso_group(*e)) return bad(at, "is not mapped");
    --e;
  }
  if (extra.lock_future() & ~uint32_t{MCL_FUTURE | MCL_ONFAULT}) return bad(0, "is locked in an unknown way");
  return {};
}

Result<void> check_vmas(const pb::mm_entry& mm, const std::string& image_name) {
  uint64_t last = 0;
  for (const auto& e : mm.vmas()) {
    auto bad = [&](const char* why) {
      return fail(Error(Code::kImageCorrupt, cat(image_name, ": mapping ", hex(e.start()), "-", hex(e.end()), " ", why))
                      .about(image_name));
    };
    if (e.start() % kernel::kPageSize || e.end() % kernel::kPageSize) return bad("is not page-aligned");
    if (e.start() >= e.end() || e.start() < last) return bad("is out of order");
    if (e.status() & kVmaVsyscall) continue;
    if (e.end() > kTaskSize) return bad("lies outside user space");
    last = e.end();
    if (e.status() & (kVmaSocket | kVmaAioring))
      return fail(Error(Code::kUnsupportedMemory,
                        cat(image_name, ": the kind of memory at ", hex(e.start()), " cannot be restored yet"))
                      .about(image_name));
    if (e.pgoff() % kernel::kPageSize || e.pgoff() >= uint64_t{1} << 62) return bad("begins within a page of its file");
    if ((e.status() & kVmaAnonShared) && !(e.flags() & MAP_SHARED)) return bad("is shared memory and not shared");
    if (!(e.status() & (kVmaAnonShared | kVmaFilePrivate | kVmaFileShared | kVmaAnonPrivate | kVmaVdso | kVmaVvar)))
      return bad("is of an unknown kind");
    if (e.prot() & ~uint32_t{PROT_READ | PROT_WRITE | PROT_EXEC}) return bad("has an unknown protection");
  }
  return {};
}

int fill_protection(const pb::vma_entry& entry, bool has_pages) {
  return static_cast<int>(entry.prot()) | (has_pages ? PROT_READ | PROT_WRITE : 0);
}

bool is_file_backed(const pb::vma_entry& entry) { return (entry.status() & (kVmaFilePrivate | kVmaFileShared)) != 0; }
bool is_shared_anonymous(const pb::vma_entry& entry) {
  return (entry.status() & kVmaAnonShared) != 0 && !(entry.status() & kVmaSysvipc);
}
bool is_sysv(const pb::vma_entry& entry) { return (entry.status() & kVmaSysvipc) != 0; }
bool is_vdso_group(const pb::vma_entry& entry) { return (entry.status() & (kVmaVdso | kVmaVvar)) != 0; }

std::optional<uint64_t> find_hole(std::vector<std::pair<uint64_t, uint64_t>> taken, uint64_t size, bool for_32_bits) {
  constexpr uint64_t kAlign = 2u << 20, k4GiB = uint64_t{1} << 32;
  std::sort(taken.begin(), taken.end());
  uint64_t at = for_32_bits ? 64u << 20 : k4GiB;
  for (const auto& [start, end] : taken) {
    if (start >= at + size + kernel::kPageSize) break;
    if (end > at) at = (end + kAlign) & ~(kAlign - 1);  // at least a page away, so that no stack grows into it
  }
  // A growing stack may come down on what lies below it: stay far from the top of user space.
  if (at + size > (for_32_bits ? k4GiB : kTaskSize - (uint64_t{1} << 36))) return std::nullopt;
  return at;
}

}  // namespace stasis::memory
