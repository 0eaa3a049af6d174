// SPDX-License-Identifier: Apache-2.0
#include "engine/files/build_id.h"

#include <elf.h>
#include <unistd.h>

#include <cstring>
#include <string>

namespace stasis::files {
namespace {

constexpr size_t kMaxNotes = 64 * 1024, kMaxHeaders = 128, kMaxId = 64;

bool read_at(int fd, uint64_t at, void* to, size_t size) {
  return at < uint64_t{1} << 62 && ::pread(fd, to, size, static_cast<off_t>(at)) == static_cast<ssize_t>(size);
}

size_t aligned(size_t size) { return (size + 3) & ~size_t{3}; }

std::vector<uint32_t> find(const std::string& notes) {
  for (size_t at = 0; notes.size() - at >= sizeof(Elf64_Nhdr);) {
    Elf64_Nhdr note;
    std::memcpy(&note, notes.data() + at, sizeof note);
    at += sizeof note;
    const size_t name = aligned(note.n_namesz), id = aligned(note.n_descsz), left = notes.size() - at;
    if (note.n_namesz > left || note.n_descsz > left || name > left || id > left - name) break;
    if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 && !std::memcmp(notes.data() + at, "GNU", 4) &&
        note.n_descsz > 0 && note.n_descsz <= kMaxId) {
      std::vector<uint32_t> words(id / sizeof(uint32_t));
      std::memcpy(words.data(), notes.data() + at + name, note.n_descsz);
      return words;
    }
    at += name + id;
  }
  return {};
}

}  // namespace

std::vector<uint32_t> build_id_of(int fd) {
  Elf64_Ehdr head;
  if (!read_at(fd, 0, &head, sizeof head) || std::memcmp(head.e_ident, ELFMAG, SELFMAG) != 0 ||
      head.e_ident[EI_CLASS] != ELFCLASS64 || head.e_phentsize != sizeof(Elf64_Phdr) || head.e_phnum > kMaxHeaders)
    return {};
  for (size_t i = 0; i < head.e_phnum; ++i) {
    Elf64_Phdr part;
    if (!read_at(fd, head.e_phoff + i * sizeof part, &part, sizeof part)) return {};
    if (part.p_type != PT_NOTE || part.p_filesz > kMaxNotes) continue;
    std::string notes(part.p_filesz, '\0');
    if (!read_at(fd, part.p_offset, notes.data(), notes.size())) continue;
    if (auto id = find(notes); !id.empty()) return id;
  }
  return {};
}

}  // namespace stasis::files
