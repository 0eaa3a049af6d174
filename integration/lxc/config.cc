// SPDX-License-Identifier: Apache-2.0
#include "integration/lxc/config.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "engine/base/io.h"
#include "engine/base/log.h"
#include "integration/config/node.h"
#include "integration/config/text.h"
#include "integration/lxc/keys.h"

namespace stasis::integration::lxc {
namespace {

constexpr size_t kMaxOpen = 16;    // includes within includes
constexpr size_t kMaxFiles = 512;  // all that are read

class Reader {
 public:
  Reader(const Files& files, Config& config) : files_(files), config_(config) {}

  Result<void> file(const std::string& path, const From& from) {
    if (std::find(open_.begin(), open_.end(), path) != open_.end())
      return fail(bad_entry(from, cat(path, " includes itself")));
    if (open_.size() >= kMaxOpen) return fail(bad_entry(from, cat("includes are nested deeper than ", kMaxOpen)));
    if (++count_ > kMaxFiles) return fail(bad_entry(from, cat("more than ", kMaxFiles, " files are included")));
    const std::string text = TRY(contents(path, from));
    open_.push_back(path);
    int number = 0;
    for (std::string_view one : lines(text)) TRY(line(one, {path, ++number}));
    open_.pop_back();
    return {};
  }

 private:
  Result<std::string> contents(const std::string& path, const From& from) {
    auto text = files_.read(path);
    if (!text && from.line > 0) return fail(bad_entry(from, text.error().message()));
    if (!text) return text;
    total_ += text->size();
    if (total_ > config::kMaxText) return fail(bad_entry({path, 1}, "the configuration is larger than 16 MiB"));
    if (text->find('\0') != std::string::npos) return fail(bad_entry({path, 1}, "a NUL byte"));
    if (!config::is_utf8(*text)) return fail(bad_entry({path, 1}, "not valid UTF-8"));
    return text;
  }

  Result<void> line(std::string_view text, const From& from) {
    text = trim(text);
    if (text.empty() || text[0] == '#') return {};
    const size_t equals = text.find('=');
    if (!text.starts_with("lxc.")) {  // LXC skips them, too
      log::debug(to_string(from), ": not a key of LXC, ignoring");
      return {};
    }
    if (equals == std::string_view::npos) return fail(bad_entry(from, "expected KEY = VALUE"));
    Entry entry{std::string(trim(text.substr(0, equals))), unquoted(trim(text.substr(equals + 1))), from};
    if (entry.key == "lxc.include") return include(entry);
    if (entry.key == "lxc.mount.fstab") return fstab(entry);
    const size_t unknown = config_.unknown.size();
    TRY(apply_entry(entry, config_));
    if (config_.unknown.size() > unknown) log::debug(to_string(from), ": unknown key ", entry.key, ", ignoring");
    config_.entries.push_back(std::move(entry));
    return {};
  }

  static std::string unquoted(std::string_view value) {
    const bool quoted = value.size() >= 2 && (value[0] == '"' || value[0] == '\'') && value.front() == value.back();
    return std::string(quoted ? value.substr(1, value.size() - 2) : value);
  }

  Result<void> include(const Entry& entry) {
    if (!entry.value.starts_with("/"))
      return fail(bad_entry(entry.from, cat("the include ", json_quote(entry.value), " is not an absolute path")));
    auto names = files_.list(entry.value);
    if (!names && names.error().sys_errno() == ENOTDIR) return file(entry.value, entry.from);
    if (!names) return fail(bad_entry(entry.from, names.error().message()));
    for (const std::string& name : *names) TRY(file(cat(entry.value, "/", name), entry.from));
    return {};
  }

  Result<void> fstab(const Entry& entry) {
    config_.entries.push_back(entry);
    if (entry.value.empty()) return {};
    const std::string text = TRY(contents(entry.value, entry.from));
    int number = 0;
    for (std::string_view one : lines(text)) {
      ++number;
      one = trim(one);
      if (one.empty() || one[0] == '#') continue;
      config_.mounts.push_back(TRY(parse_mount_entry(one, {entry.value, number})));
    }
    return {};
  }

  const Files& files_;
  Config& config_;
  std::vector<std::string> open_;
  size_t count_ = 0, total_ = 0;
};

// \040 and its like, as getmntent(3) has them.
Result<std::string> unescaped(std::string_view text, const From& from) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\') {
      out += text[i];
      continue;
    }
    const auto code = parse_int<unsigned>(text.substr(i + 1, 3), 8);
    if (code && text.size() - i >= 4 && *code < 256) {
      if (*code == 0) return fail(bad_entry(from, "a NUL in a mount entry"));
      out += static_cast<char>(*code);
      i += 3;
    } else {
      out += '\\';
    }
  }
  return out;
}

Result<std::vector<std::string>> conf_names(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return fail_sys("stat", path);
  if (!S_ISDIR(status.st_mode)) {
    errno = ENOTDIR;
    return fail_sys("list", path);
  }
  auto names = TRY(list_dir(AT_FDCWD, path));
  std::erase_if(names, [](const std::string& name) { return !name.ends_with(".conf"); });
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

std::string to_string(const From& from) {
  return cat(std::string_view(from.file).substr(from.file.rfind('/') + 1), ":", from.line);
}

bool MountEntry::has(std::string_view option) const {
  return std::any_of(options.begin(), options.end(), [&](const std::string& one) {
    return one == option || (one.size() > option.size() && one.starts_with(option) && one[option.size()] == '=');
  });
}

Result<MountEntry> parse_mount_entry(std::string_view text, From from) {
  const auto parts = fields(text);
  if (parts.size() < 4 || parts.size() > 6)
    return fail(bad_entry(from, "expected a mount as in fstab(5): source, destination, type and options"));
  MountEntry out;
  out.source = TRY(unescaped(parts[0], from));
  out.destination = TRY(unescaped(parts[1], from));
  out.type = parts[2];
  for (std::string_view option : split(parts[3], ',')) {
    if (option.empty()) continue;
    out.options.push_back(TRY(unescaped(option, from)));
  }
  for (std::string_view part : split(out.destination, '/'))
    if (part == "..") return fail(bad_entry(from, "the mount destination has a \"..\" in it"));
  for (std::string_view number : {parts.size() > 4 ? parts[4] : "0", parts.size() > 5 ? parts[5] : "0"})
    if (!parse_int<unsigned>(number)) return fail(bad_entry(from, cat(json_quote(number), " is not a number")));
  out.from = std::move(from);
  return out;
}

Files real_files() {
  return {[](const std::string& path) { return config::read_text(path); }, conf_names};
}

Result<Config> parse_config(const std::string& path, const Files& files) {
  Config config;
  TRY(Reader(files, config).file(path, {path, 0}));
  return config;
}

Result<Config> read_config(const std::string& path) { return parse_config(path, real_files()); }

}  // namespace stasis::integration::lxc
