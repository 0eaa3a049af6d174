// SPDX-License-Identifier: Apache-2.0
#include "engine/procfs/mountinfo.h"

#include "engine/base/io.h"

namespace stasis::procfs {
namespace {

std::unexpected<Error> malformed(std::string_view line) {
  return fail(Error(Code::kSystem, cat("malformed mountinfo line \"", line.substr(0, 200), "\"")).about("mountinfo"));
}

bool octal(char c) { return c >= '0' && c <= '7'; }

// Splits at single blanks: the source may be an empty field (fs/proc_namespace.c prints
// an empty device name as nothing), which fields() would swallow.
std::vector<std::string_view> columns(std::string_view line) { return split(line, ' '); }

bool parse_tag(std::string_view field, std::string_view tag, int* id) {
  if (!field.starts_with(tag)) return false;
  auto value = parse_int<int>(field.substr(tag.size()));
  if (!value || *value <= 0) return false;
  *id = *value;
  return true;
}

}  // namespace

std::string unescape_octal(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size() && text[i + 1] <= '3' && octal(text[i + 1]) && octal(text[i + 2]) &&
        octal(text[i + 3])) {
      out += static_cast<char>((text[i + 1] - '0') << 6 | (text[i + 2] - '0') << 3 | (text[i + 3] - '0'));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

Result<MountInfo> parse_mountinfo_line(std::string_view line) {
  auto column = columns(line);
  if (column.size() < 10) return malformed(line);
  MountInfo m;
  auto id = parse_int<int>(column[0]);
  auto parent = parse_int<int>(column[1]);
  auto dev = split(column[2], ':');
  if (!id || !parent || dev.size() != 2) return malformed(line);
  auto major = parse_int<uint32_t>(dev[0]);
  auto minor = parse_int<uint32_t>(dev[1]);
  if (!major || !minor) return malformed(line);
  m.mnt_id = *id;
  m.parent_id = *parent;
  m.major = *major;
  m.minor = *minor;
  m.root = unescape_octal(column[3]);
  m.mountpoint = unescape_octal(column[4]);
  m.options = std::string(column[5]);
  size_t i = 6;
  for (; i < column.size() && column[i] != "-"; ++i) {
    if (column[i] == "unbindable")
      m.unbindable = true;
    else if (!parse_tag(column[i], "shared:", &m.shared_id) && !parse_tag(column[i], "master:", &m.master_id) &&
             !parse_tag(column[i], "propagate_from:", &m.propagate_from))
      continue;
  }
  if (i + 3 >= column.size()) return malformed(line);
  m.fstype = unescape_octal(column[i + 1]);
  m.source = unescape_octal(column[i + 2]);
  m.super_options = unescape_octal(column[i + 3]);
  if (m.root.empty() || m.mountpoint.empty() || m.fstype.empty()) return malformed(line);
  return m;
}

Result<std::vector<MountInfo>> parse_mountinfo(std::string_view text) {
  std::vector<MountInfo> all;
  for (auto line : lines(text)) {
    if (line.empty()) continue;
    all.push_back(TRY(parse_mountinfo_line(line)));
  }
  return all;
}

Result<std::vector<MountInfo>> read_mountinfo(int proc_dirfd, const std::string& pid) {
  std::string text = TRY(read_file_at(proc_dirfd, pid + "/mountinfo"));
  return parse_mountinfo(text);
}

}  // namespace stasis::procfs
