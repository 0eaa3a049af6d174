// SPDX-License-Identifier: Apache-2.0
#include "engine/cli/config_file.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cerrno>

#include "engine/base/io.h"
#include "engine/base/strings.h"

namespace stasis::cli {
namespace {

constexpr size_t kMaxConfigSize = 1u << 20;

// Words of one line. '"' may begin anywhere in a word ("--opt="a b""), '#' only at a word's beginning.
Result<std::vector<std::string>> words_of(std::string_view line) {
  std::vector<std::string> words;
  size_t i = 0;
  while (true) {
    while (i < line.size() && (line[i] == ' ' || line[i] == '\t' || line[i] == '\r')) ++i;
    if (i >= line.size() || line[i] == '#') return words;
    std::string word;
    bool quoted = false;
    for (; i < line.size(); ++i) {
      const char c = line[i];
      if (quoted && c == '\\' && i + 1 < line.size() && (line[i + 1] == '"' || line[i + 1] == '\\')) {
        word += line[++i];
      } else if (c == '"') {
        quoted = !quoted;
      } else if (!quoted && (c == ' ' || c == '\t' || c == '\r')) {
        break;
      } else {
        word += c;
      }
    }
    if (quoted) return fail(Code::kBadOption, "a quotation mark is not closed");
    words.push_back(std::move(word));
  }
}

struct Found {
  const OptionSpec* spec;
  bool on;
};

Result<Found> find_option(std::string_view name) {
  for (const auto& spec : option_table()) {
    if (spec.where & kStasisOnly) continue;
    const bool plain = spec.name == name, no = spec.negatable && name.starts_with("no-") && name.substr(3) == spec.name;
    if (!plain && !no) continue;
    if (spec.where & kCliOnly) return fail(Code::kBadOption, cat("option ", name, " is for the command line only"));
    return Found{&spec, plain};
  }
  return fail(Code::kBadOption, cat("unknown option \"", name, "\" (long names, without dashes)"));
}

Result<void> apply_line(const std::vector<std::string>& words, Request& request) {
  std::string_view name = words[0], value;
  const size_t eq = name.find('=');
  const bool assigned = eq != std::string_view::npos;
  if (assigned) {
    value = name.substr(eq + 1);
    name = name.substr(0, eq);
  } else if (words.size() > 1) {
    value = words[1];
  }
  if (words.size() > (assigned ? 1u : 2u))
    return fail(Code::kBadOption, cat("too many words after ", name, " (quote a value that has blanks)"));
  const Found found = TRY(find_option(name));
  const bool has_value = assigned || words.size() > 1;
  if (has_value && (found.spec->arg == Arg::kNone || !found.on))
    return fail(Code::kBadOption, cat("option ", name, " takes no value"));
  if (!has_value && found.spec->arg == Arg::kRequired)
    return fail(Code::kBadOption, cat("option ", name, " needs a value"));
  TRY_CTX(found.spec->set(request, value, found.on), "option ", name);
  return {};
}

}  // namespace

Result<void> parse_config(std::string_view text, std::string_view name, Request& request) {
  request.verbosity = 0;
  size_t number = 0;
  for (const auto line : lines(text)) {
    ++number;
    const std::string place = cat(name, ":", number);
    const auto words = TRY_CTX(words_of(line), place);
    if (words.empty()) continue;
    TRY_CTX(apply_line(words, request), place);
  }
  return {};
}

Result<bool> read_config(const std::string& path, Request& request) {
  // A FIFO must not hang us: opened without waiting, and only regular files are read.
  auto fd = open_at(AT_FDCWD, path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
  if (!fd) {
    if (fd.error().sys_errno() == ENOENT || fd.error().sys_errno() == ENOTDIR) return false;
    return fail(std::move(fd).error());
  }
  struct stat st {};
  if (fstat(fd->get(), &st) != 0) return fail_sys("fstat", path);
  if (!S_ISREG(st.st_mode))
    return fail(Error(Code::kBadOption, cat("config file ", path, " is not a regular file")).about(path));
  const std::string text = TRY(read_all(fd->get(), kMaxConfigSize, path));
  TRY(parse_config(text, path, request));
  return true;
}

ConfigPlaces config_places() {
  ConfigPlaces places;
  if (const char* home = getenv("HOME")) places.home = home;
  if (const char* file = getenv("CRIU_CONFIG_FILE")) places.environment = file;
  return places;
}

Result<void> read_default_configs(const ConfigPlaces& places, Request& request) {
  (void)TRY(read_config(places.system, request));
  if (!places.home.empty()) (void)TRY(read_config(places.home + "/.criu/default.conf", request));
  if (!places.environment.empty()) (void)TRY(read_config(places.environment, request));
  return {};
}

}  // namespace stasis::cli
