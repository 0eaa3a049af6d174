// SPDX-License-Identifier: Apache-2.0
#include "engine/procfs/fdinfo.h"

#include "engine/base/strings.h"

namespace stasis::procfs {
namespace {

std::unexpected<Error> bad(std::string_view what) {
  return fail(Code::kSystem, cat("unexpected format of /proc/PID/fdinfo: ", what));
}

// "(12, 345)"
std::optional<timespec> parse_time(std::string_view text) {
  if (!text.starts_with('(') || !text.ends_with(')')) return std::nullopt;
  const auto parts = split(text.substr(1, text.size() - 2), ',');
  if (parts.size() != 2) return std::nullopt;
  const auto sec = parse_int<time_t>(trim(parts[0]));
  const auto nsec = parse_int<long>(trim(parts[1]));
  if (!sec || !nsec) return std::nullopt;
  return timespec{*sec, *nsec};
}

}  // namespace

std::optional<std::string_view> field(const FdInfo& info, std::string_view key) {
  for (const std::string_view line : info.rest)
    if (line.size() > key.size() && line.starts_with(key) && line[key.size()] == ':')
      return trim(line.substr(key.size() + 1));
  return std::nullopt;
}

Result<uint64_t> number(const FdInfo& info, std::string_view key, int base) {
  const auto text = field(info, key);
  const auto value = text ? parse_int<uint64_t>(*text, base) : std::nullopt;
  if (!value) return bad(cat("no ", key));
  return *value;
}

Result<TimerInfo> parse_timer(const FdInfo& info) {
  TimerInfo out;
  out.clock = static_cast<uint32_t>(TRY(number(info, "clockid")));
  out.ticks = TRY(number(info, "ticks"));
  out.settime = static_cast<uint32_t>(TRY(number(info, "settime flags", 8)));
  for (auto [key, where] : {std::pair{"it_value", &out.left}, {"it_interval", &out.interval}}) {
    const auto text = field(info, key);
    const auto time = text ? parse_time(*text) : std::nullopt;
    if (!time) return bad(cat("no ", key));
    *where = *time;
  }
  return out;
}

Result<std::vector<EpollEntry>> parse_epoll(const FdInfo& info) {
  std::vector<EpollEntry> out;
  for (const std::string_view line : info.rest) {
    if (!line.starts_with("tfd:")) continue;
    // "tfd:        3 events: 80000019 data:             1234  pos:0 ino:40e sdev:10"
    auto value = [&](std::string_view key, auto& into, int base) {
      const auto at = line.find(key);
      if (at == std::string_view::npos) return false;
      const auto words = fields(line.substr(at + key.size()));
      if (words.empty()) return false;
      const auto number = parse_int<std::remove_reference_t<decltype(into)>>(words[0], base);
      if (number) into = *number;
      return number.has_value();
    };
    auto& e = out.emplace_back();
    int64_t pos = 0;
    if (!value("tfd:", e.number, 10) || !value(" events:", e.events, 16) || !value(" data:", e.data, 16) ||
        !value(" pos:", pos, 10) || !value(" ino:", e.inode, 16) || !value(" sdev:", e.dev, 16))
      return bad(line);
    e.pos = static_cast<uint64_t>(pos);
  }
  return out;
}

}  // namespace stasis::procfs
