// SPDX-License-Identifier: Apache-2.0
// Pure parsers of /proc text. proc(5); fs/proc/{array,task_mmu,fd,base}.c.
#include <signal.h>

#include <algorithm>
#include <cerrno>

#include "engine/procfs/procfs.h"

namespace stasis::procfs {
namespace {

std::unexpected<Error> bad(std::string_view file, std::string_view line) {
  return fail(Code::kInternal, cat("/proc ", file, ": cannot parse \"", line.substr(0, 120), "\""));
}

template <class Int>
bool set(Int& out, std::string_view text, int base = 10) {
  const auto value = parse_int<Int>(text, base);
  if (value) out = *value;
  return value.has_value();
}

template <class Int>
bool set_list(std::vector<Int>& out, std::string_view text) {
  out.clear();
  for (auto field : fields(text)) {
    Int value{};
    if (!set(value, field)) return false;
    out.push_back(value);
  }
  return true;
}

bool set_ids(uint32_t (&out)[4], std::string_view text) {
  std::vector<uint32_t> list;
  if (!set_list(list, text) || list.size() != 4) return false;
  std::copy(list.begin(), list.end(), out);
  return true;
}

// "12 kB"
bool set_kb(uint64_t& out, std::string_view text) {
  const auto f = fields(text);
  return !f.empty() && set(out, f[0]);
}

bool status_field(Status& s, std::string_view key, std::string_view value) {
  if (key == "Umask") return set(s.umask, value, 8);
  if (key == "State") return !value.empty() && (s.state = value[0], true);
  if (key == "Tgid") return set(s.tgid, value);
  if (key == "PPid") return set(s.ppid, value);
  if (key == "TracerPid") return set(s.tracer_pid, value);
  if (key == "Uid") return set_ids(s.uid, value);
  if (key == "Gid") return set_ids(s.gid, value);
  if (key == "Groups") return set_list(s.groups, value);
  if (key == "NStgid") return set_list(s.ns_tgid, value);
  if (key == "NSpid") return set_list(s.ns_pid, value);
  if (key == "NSpgid") return set_list(s.ns_pgid, value);
  if (key == "NSsid") return set_list(s.ns_sid, value);
  if (key == "VmLck") return set_kb(s.locked_kb, value);
  if (key == "Threads") return set(s.threads, value);
  if (key == "SigPnd") return set(s.sig_pending, value, 16);
  if (key == "ShdPnd") return set(s.shared_pending, value, 16);
  if (key == "SigBlk") return set(s.sig_blocked, value, 16);
  if (key == "SigIgn") return set(s.sig_ignored, value, 16);
  if (key == "SigCgt") return set(s.sig_caught, value, 16);
  if (key == "CapInh") return set(s.cap_inheritable, value, 16);
  if (key == "CapPrm") return set(s.cap_permitted, value, 16);
  if (key == "CapEff") return set(s.cap_effective, value, 16);
  if (key == "CapBnd") return set(s.cap_bounding, value, 16);
  if (key == "CapAmb") return set(s.cap_ambient, value, 16);
  if (key == "NoNewPrivs") return set(s.no_new_privs, value);
  if (key == "Seccomp") return set(s.seccomp, value);
  return true;
}

// "start-end perms offset major:minor inode   name"
bool parse_map_line(std::string_view line, Map& map) {
  const auto dash = line.find('-');
  const auto space = line.find(' ');
  if (dash == std::string_view::npos || space == std::string_view::npos || dash > space) return false;
  if (!set(map.start, line.substr(0, dash), 16) || !set(map.end, line.substr(dash + 1, space - dash - 1), 16))
    return false;
  if (map.start >= map.end) return false;
  size_t at = space + 1;
  auto next = [&]() {
    const auto end = std::min(line.find(' ', at), line.size());
    const auto field = line.substr(std::min(at, line.size()), end - std::min(at, line.size()));
    at = end + 1;
    return field;
  };
  const auto perms = next(), offset = next(), dev = next(), inode = next();
  const auto colon = dev.find(':');
  if (perms.size() != 4 || colon == std::string_view::npos) return false;
  map.read = perms[0] == 'r';
  map.write = perms[1] == 'w';
  map.exec = perms[2] == 'x';
  map.shared = perms[3] == 's';
  if (!set(map.offset, offset, 16) || !set(map.dev_major, dev.substr(0, colon), 16) ||
      !set(map.dev_minor, dev.substr(colon + 1), 16) || !set(map.inode, inode))
    return false;
  const auto name = at < line.size() ? line.find_first_not_of(' ', at) : std::string_view::npos;
  if (name != std::string_view::npos) map.name = line.substr(name);
  return true;
}

}  // namespace

Result<Stat> parse_stat(std::string_view text) {
  // comm may hold anything, ')' and newlines included: it ends at the last ')'.
  const auto open = text.find('('), close = text.rfind(')');
  if (open == std::string_view::npos || close == std::string_view::npos || close < open) return bad("stat", text);
  Stat s;
  s.comm = text.substr(open + 1, close - open - 1);
  const auto f = fields(trim(text.substr(close + 1)));  // f[0] is field 3 of proc(5)
  if (f.size() < 50 || f[0].size() != 1) return bad("stat", text);
  s.state = f[0][0];
  const bool ok = set(s.pid, trim(text.substr(0, open))) && set(s.ppid, f[1]) && set(s.pgrp, f[2]) &&
                  set(s.session, f[3]) && set(s.tty_nr, f[4]) && set(s.tpgid, f[5]) && set(s.nice, f[16]) &&
                  set(s.start_time, f[19]) && set(s.start_code, f[23]) && set(s.end_code, f[24]) &&
                  set(s.start_stack, f[25]) && set(s.exit_signal, f[35]) && set(s.rt_priority, f[37]) &&
                  set(s.policy, f[38]) && set(s.start_data, f[42]) && set(s.end_data, f[43]) &&
                  set(s.start_brk, f[44]) && set(s.arg_start, f[45]) && set(s.arg_end, f[46]) &&
                  set(s.env_start, f[47]) && set(s.env_end, f[48]) && set(s.exit_code, f[49]);
  if (!ok) return bad("stat", text);
  return s;
}

Result<Status> parse_status(std::string_view text) {
  Status s;
  bool named = false;
  for (auto line : lines(text)) {
    const auto colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    const auto key = line.substr(0, colon), value = trim(line.substr(colon + 1));
    if (key == "Name" && !named) {
      s.name = value;
      named = true;
    } else if (!status_field(s, key, value)) {
      return bad("status", line);
    }
  }
  // A task that was reaped between open(2) and read(2) has numbers no longer: all of them are 0.
  if (s.tgid == 0 && text.find("\nTgid:\t0\n") != std::string_view::npos)
    return fail(Error(Code::kTaskGone, "the task has been reaped").with_errno(ESRCH));
  if (s.tgid == 0) return bad("status", "no Tgid");
  return s;
}

bool Map::flag(std::string_view two_letters) const {
  return std::find(vm_flags.begin(), vm_flags.end(), two_letters) != vm_flags.end();
}

Result<std::vector<Map>> parse_smaps(std::string_view text) {
  std::vector<Map> maps;
  for (auto line : lines(text)) {
    // Attribute lines of smaps begin with a capital letter, address lines with a hex digit.
    if (!line.empty() && line[0] >= 'A' && line[0] <= 'Z') {
      const auto colon = line.find(':');
      if (maps.empty() || colon == std::string_view::npos) continue;
      const auto key = line.substr(0, colon), value = line.substr(colon + 1);
      bool ok = true;
      if (key == "VmFlags")
        for (auto flag : fields(value)) maps.back().vm_flags.emplace_back(flag);
      else if (key == "KernelPageSize")
        ok = set_kb(maps.back().page_kb, value);
      else if (key == "ProtectionKey")
        ok = set(maps.back().protection_key.emplace(), trim(value));
      if (!ok) return bad("smaps", line);
      continue;
    }
    Map map;
    if (!parse_map_line(line, map)) return bad("maps", line);
    if (!maps.empty() && map.start < maps.back().end) return bad("maps", line);
    maps.push_back(std::move(map));
  }
  return maps;
}

Result<FdInfo> parse_fdinfo(std::string_view text) {
  FdInfo info;
  bool have_pos = false, have_flags = false;
  for (auto line : lines(text)) {
    const auto colon = line.find(':');
    const auto key = line.substr(0, colon);
    const auto value = colon == std::string_view::npos ? std::string_view{} : trim(line.substr(colon + 1));
    bool ok = true;
    if (key == "pos" && !have_pos) {
      // A negative position (seen on /proc/PID/mem) is shown signed.
      if (int64_t pos; (ok = set(pos, value))) info.pos = static_cast<uint64_t>(pos), have_pos = true;
    } else if (key == "flags" && !have_flags) {
      ok = have_flags = set(info.flags, value, 8);
    } else if (key == "mnt_id") {
      ok = set(info.mnt_id, value);
    } else if (key == "ino" && info.rest.empty()) {
      ok = set(info.inode, value);
    } else {
      info.rest.emplace_back(line);
    }
    if (!ok) return bad("fdinfo", line);
  }
  if (!have_pos || !have_flags) return bad("fdinfo", text);
  return info;
}

Result<std::vector<Limit>> parse_limits(std::string_view text) {
  std::vector<Limit> out;
  for (auto line : lines(text)) {
    if (!line.starts_with("Max ")) continue;
    // "%-25s %-20s %-20s %-10s": the name is a column of 25, fs/proc/base.c proc_pid_limits().
    if (line.size() < 26) return bad("limits", line);
    const auto f = fields(line.substr(26));
    if (f.size() < 2) return bad("limits", line);
    Limit limit{~uint64_t{0}, ~uint64_t{0}};
    if ((f[0] != "unlimited" && !set(limit.soft, f[0])) || (f[1] != "unlimited" && !set(limit.hard, f[1])))
      return bad("limits", line);
    out.push_back(limit);
  }
  return out;
}

namespace {

// "signal: 60/00007fff86e452a8"
bool timer_signal(PosixTimer& timer, std::string_view value) {
  const auto slash = value.find('/');
  return slash != std::string_view::npos && set(timer.signal, value.substr(0, slash)) &&
         set(timer.value, value.substr(slash + 1), 16);
}

// "notify: signal/pid.2634"; "tid" instead of "pid" stands for SIGEV_THREAD_ID.
bool timer_notify(PosixTimer& timer, std::string_view value) {
  const auto slash = value.find('/'), dot = value.find('.');
  if (slash == std::string_view::npos || dot == std::string_view::npos || dot < slash) return false;
  const auto how = value.substr(0, slash), whom = value.substr(slash + 1, dot - slash - 1);
  if (how != "signal" && how != "none" && how != "thread") return false;
  timer.notify = whom == "tid"     ? SIGEV_THREAD_ID
                 : how == "none"   ? SIGEV_NONE
                 : how == "thread" ? SIGEV_THREAD
                                   : SIGEV_SIGNAL;
  return set(timer.target, value.substr(dot + 1));
}

}  // namespace

Result<std::vector<PosixTimer>> parse_timers(std::string_view text) {
  std::vector<PosixTimer> timers;
  for (auto line : lines(text)) {
    const auto colon = line.find(':');
    if (colon == std::string_view::npos) return bad("timers", line);
    const auto key = line.substr(0, colon), value = trim(line.substr(colon + 1));
    if (key == "ID") timers.emplace_back();
    if (timers.empty()) return bad("timers", line);
    auto& timer = timers.back();
    bool ok = true;
    if (key == "ID") ok = set(timer.id, value);
    if (key == "signal") ok = timer_signal(timer, value);
    if (key == "notify") ok = timer_notify(timer, value);
    if (key == "ClockID") ok = set(timer.clock, value);
    if (!ok) return bad("timers", line);
  }
  return timers;
}

Result<std::vector<SleepTimer>> parse_timer_list(std::string_view text) {
  std::vector<SleepTimer> timers;
  int clock = -1;
  bool sleeps = false;
  for (auto line : lines(text)) {
    const auto f = fields(line);
    if (f.size() == 2 && f[0] == "clock") {  // "clock 0:"; four more for timers that end in soft interrupts
      if (f[1].size() != 2 || f[1][0] < '0' || f[1][0] > '7') return bad("timer_list", line);
      clock = (f[1][0] - '0') % 4;
    } else if (f.size() >= 3 && f[0].starts_with("#") &&
               f[0].size() > 1) {  // "#0: <00000000bc8eca79>, hrtimer_wakeup, S:01"
      sleeps = f[2] == "hrtimer_wakeup,";
    } else if (f.size() >= 8 && f[0] == "#" && f[1] == "expires" &&
               sleeps) {  // "# expires at 1-2 nsecs [in 3 to 4 nsecs]"
      SleepTimer timer{.clock = clock};
      if (!set(timer.end, f[3].substr(0, f[3].find('-'))) || !set(timer.left, f[6])) return bad("timer_list", line);
      timers.push_back(timer);
    }
  }
  return timers;
}

}  // namespace stasis::procfs
