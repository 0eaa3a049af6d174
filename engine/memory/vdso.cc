// SPDX-License-Identifier: Apache-2.0
#include "engine/memory/vdso.h"

#include <elf.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "engine/base/io.h"
#include "engine/memory/vma.h"

namespace stasis::memory {
namespace {

template <class T>
std::optional<T> load_at(std::span<const uint8_t> image, uint64_t at) {
  if (at > image.size() || image.size() - at < sizeof(T)) return std::nullopt;
  T value;
  std::memcpy(&value, image.data() + at, sizeof(T));
  return value;
}

std::unexpected<Error> bad_elf(const char* what) {
  return fail(Error(Code::kImageCorrupt, cat("the vDSO of the images ", what)).about("[vdso]"));
}

struct Tables {
  uint64_t bias = 0;  // some kernels link it at a high address
  uint64_t symbols = 0, strings = 0, strings_size = 0, hash = 0;
};

Result<Tables> find_tables(std::span<const uint8_t> image) {
  const auto head = load_at<Elf64_Ehdr>(image, 0);
  if (!head || std::memcmp(head->e_ident, ELFMAG, SELFMAG) != 0 || head->e_ident[EI_CLASS] != ELFCLASS64)
    return bad_elf("is no ELF file");
  Tables tables;
  std::optional<Elf64_Phdr> dynamic;
  for (int i = 0; i < head->e_phnum; ++i) {
    const auto part = load_at<Elf64_Phdr>(image, head->e_phoff + static_cast<uint64_t>(i) * sizeof(Elf64_Phdr));
    if (!part) return bad_elf("has no program headers");
    if (part->p_type == PT_LOAD) tables.bias = part->p_vaddr - part->p_offset;
    if (part->p_type == PT_DYNAMIC) dynamic = part;
  }
  if (!dynamic) return bad_elf("has no dynamic section");
  for (uint64_t at = dynamic->p_offset; at < dynamic->p_offset + dynamic->p_filesz; at += sizeof(Elf64_Dyn)) {
    const auto entry = load_at<Elf64_Dyn>(image, at);
    if (!entry || entry->d_tag == DT_NULL) break;
    if (entry->d_tag == DT_SYMTAB) tables.symbols = entry->d_un.d_ptr - tables.bias;
    if (entry->d_tag == DT_STRTAB) tables.strings = entry->d_un.d_ptr - tables.bias;
    if (entry->d_tag == DT_STRSZ) tables.strings_size = entry->d_un.d_val;
    if (entry->d_tag == DT_HASH) tables.hash = entry->d_un.d_ptr - tables.bias;
  }
  if (!tables.symbols || !tables.strings || tables.strings > image.size() ||
      tables.strings_size > image.size() - tables.strings)
    return bad_elf("has no symbols");
  return tables;
}

// DT_HASH says it; where there is none, the strings come right behind the symbols.
uint64_t count_symbols(std::span<const uint8_t> image, const Tables& tables) {
  if (tables.hash)
    if (const auto chains = load_at<uint32_t>(image, tables.hash + 4)) return *chains;
  return tables.strings > tables.symbols ? (tables.strings - tables.symbols) / sizeof(Elf64_Sym) : 0;
}

}  // namespace

Result<std::map<std::string, uint64_t>> vdso_functions(std::span<const uint8_t> image) {
  const auto tables = TRY(find_tables(image));
  std::map<std::string, uint64_t> out;
  const uint64_t count = std::min<uint64_t>(count_symbols(image, tables), image.size() / sizeof(Elf64_Sym));
  for (uint64_t i = 0; i < count; ++i) {
    const auto symbol = load_at<Elf64_Sym>(image, tables.symbols + i * sizeof(Elf64_Sym));
    if (!symbol) break;
    const uint64_t at = symbol->st_value - tables.bias;
    if (symbol->st_shndx == SHN_UNDEF || ELF64_ST_TYPE(symbol->st_info) == STT_OBJECT || at == 0 ||
        at >= image.size() || symbol->st_name >= tables.strings_size)
      continue;
    const auto* name = reinterpret_cast<const char*>(image.data() + tables.strings + symbol->st_name);
    const size_t length = ::strnlen(name, tables.strings_size - symbol->st_name);
    if (length == tables.strings_size - symbol->st_name) return bad_elf("has a name without an end");
    out.emplace(std::string(name, length), at);
  }
  return out;
}

Result<OwnVdso> own_vdso(const procfs::Procfs& proc) {
  OwnVdso own;
  uint64_t start = 0;
  for (const auto& map : TRY(procfs::parse_smaps(TRY(proc.text(::getpid(), "maps"))))) {
    if (map.name != "[vdso]" && !map.name.starts_with("[vvar")) continue;
    if (own.parts.empty()) start = map.start;
    own.parts.emplace_back(map.start - start, map.size());
    own.size = map.end - start;
    if (map.name != "[vdso]") continue;
    own.text_offset = map.start - start;
    own.text = {reinterpret_cast<const uint8_t*>(map.start), map.size()};
  }
  return own;
}

namespace {

struct TaskVdso {
  std::vector<std::pair<uint64_t, uint64_t>> parts;
  uint64_t start = 0;
  Run text;
};

TaskVdso vdso_of(const tasks::TaskImage& task) {
  TaskVdso out;
  for (const auto& e : task.mm.vmas()) {
    if (!is_vdso_group(e)) continue;
    if (out.parts.empty()) out.start = e.start();
    out.parts.emplace_back(e.start() - out.start, e.end() - e.start());
    if (e.status() & kVmaVdso) out.text = {e.start(), e.end()};
  }
  return out;
}

// Empty if the images do not have all of it.
Result<std::vector<uint8_t>> read_text(const tasks::Snapshot& s, const tasks::TaskImage& task, Run text) {
  constexpr uint64_t kMost = 64 * 1024;
  for (const auto& source : task.sources) {
    if (source.start > text.start || source.end < text.end || text.end - text.start > kMost) continue;
    std::vector<uint8_t> bytes(text.end - text.start);
    const std::string name = cat("pages-", source.pages_id, ".img");
    const Fd file = TRY(s.images->open_raw(name));
    const auto offset = static_cast<off_t>(source.offset + (text.start - source.start));
    if (::pread(file.get(), bytes.data(), bytes.size(), offset) != static_cast<ssize_t>(bytes.size()))
      return fail_sys(Code::kImageCorrupt, "read the vDSO of the images");
    return bytes;
  }
  return std::vector<uint8_t>();
}

// movabs rax, target; jmp rax
std::vector<uint8_t> jump_to(uint64_t target) {
  std::vector<uint8_t> code = {0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xe0};
  std::memcpy(&code[2], &target, 8);
  return code;
}

// mov eax, number; syscall; ret
std::vector<uint8_t> system_call(uint32_t number) {
  std::vector<uint8_t> code = {0xb8, 0, 0, 0, 0, 0x0f, 0x05, 0xc3};
  std::memcpy(&code[1], &number, 4);
  return code;
}

// Every function that looks at the kernel's data. Others work where they are.
const std::map<std::string, uint32_t> kFunctions = {
    {"__vdso_clock_gettime", __NR_clock_gettime},
    {"clock_gettime", __NR_clock_gettime},
    {"__vdso_gettimeofday", __NR_gettimeofday},
    {"gettimeofday", __NR_gettimeofday},
    {"__vdso_time", __NR_time},
    {"time", __NR_time},
    {"__vdso_clock_getres", __NR_clock_getres},
    {"clock_getres", __NR_clock_getres},
    {"__vdso_getcpu", __NR_getcpu},
    {"getcpu", __NR_getcpu},
    {"__vdso_getrandom", 318 /* getrandom */},
    {"getrandom", 318},
};

// The state that getrandom keeps in the task's memory is of the old kernel's making: the system call needs none.
bool keeps_state(const std::string& name) { return name.ends_with("getrandom"); }

}  // namespace

Result<VdsoPlan> plan_vdso(const tasks::Snapshot& s, const tasks::TaskImage& task, const OwnVdso& own,
                           const Run& taken) {
  const TaskVdso vdso = vdso_of(task);
  if (vdso.parts.empty()) return VdsoPlan{};
  const auto text = TRY(read_text(s, task, vdso.text));
  const bool same_text = text.empty() || std::ranges::equal(text, own.text);
  if (vdso.parts == own.parts && same_text) return VdsoPlan{.at = vdso.start, .ia32 = task.ia32};
  if (task.ia32)
    return fail(Error(Code::kKernelFeature, cat("pid ", task.node.pid(),
                                                ": this kernel, or its processor, has another vDSO for 32-bit code "
                                                "than the images"))
                    .about("[vdso]"));
  if (text.empty())
    return fail(Error(Code::kKernelFeature, cat("pid ", task.node.pid(),
                                                ": the vDSO of this kernel is laid out differently, "
                                                "and the images do not have that of theirs"))
                    .about("[vdso]"));
  VdsoPlan plan{.redirect = true};
  if (!own.parts.empty()) {
    std::vector<std::pair<uint64_t, uint64_t>> full{{taken.start, taken.end}};
    for (const auto& e : task.mm.vmas())
      if (!(e.status() & kVmaVsyscall)) full.emplace_back(e.start(), e.end());
    const auto hole = find_hole(std::move(full), own.size);
    if (!hole) return fail(Code::kUnsupportedMemory, "the task leaves no free address range for the vDSO");
    plan.at = *hole;
  }
  const auto theirs = TRY(vdso_functions(text));
  const auto ours = own.text.empty() ? std::map<std::string, uint64_t>() : TRY(vdso_functions(own.text));
  std::map<uint64_t, std::vector<uint8_t>> patches;  // several names may be one function
  for (const auto& [name, number] : kFunctions) {
    const auto old = theirs.find(name);
    if (old == theirs.end()) continue;
    const auto now = ours.find(name);
    auto code =
        now == ours.end() || keeps_state(name) ? system_call(number) : jump_to(plan.at + own.text_offset + now->second);
    if (old->second + code.size() > text.size()) return bad_elf("has a function at its end");
    patches[vdso.text.start + old->second] = std::move(code);
  }
  plan.patches.assign(patches.begin(), patches.end());
  return plan;
}

}  // namespace stasis::memory
