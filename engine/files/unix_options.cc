// SPDX-License-Identifier: Apache-2.0
#include "engine/files/unix_options.h"

#include <sys/socket.h>
#include <sys/time.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "engine/files/inet_options.h"
#include "engine/files/socket_options.h"

namespace stasis::files {
namespace {

using Opts = pb::sk_opts_entry;

constexpr int kSndBufForce = 32, kRcvBufForce = 33;

// Kept in the manifest when they differ from those of a new socket; the numbers of asm-generic/socket.h.
constexpr int kOptions[] = {29 /*TIMESTAMP*/,    35 /*TIMESTAMPNS*/,
                            37 /*TIMESTAMPING*/, 40 /*RXQ_OVFL*/,
                            42 /*PEEK_OFF*/,     45 /*SELECT_ERR_QUEUE*/,
                            46 /*BUSY_POLL*/,    47 /*MAX_PACING_RATE*/,
                            60 /*ZEROCOPY*/,     69 /*PREFER_BUSY_POLL*/,
                            74 /*TXREHASH*/,     76 /*PASSPIDFD*/,
                            82 /*RCVPRIORITY*/,  83 /*PASSRIGHTS*/};

struct Flag {
  int name;
  bool (Opts::*get)() const;
  void (Opts::*set)(bool);
};
const Flag kFlags[] = {
    {SO_REUSEADDR, &Opts::reuseaddr, &Opts::set_reuseaddr},
    {SO_BROADCAST, &Opts::so_broadcast, &Opts::set_so_broadcast},
    {SO_KEEPALIVE, &Opts::so_keepalive, &Opts::set_so_keepalive},
    {SO_DONTROUTE, &Opts::so_dontroute, &Opts::set_so_dontroute},
    {SO_NO_CHECK, &Opts::so_no_check, &Opts::set_so_no_check},
    {SO_PASSCRED, &Opts::so_passcred, &Opts::set_so_passcred},
    {SO_PASSSEC, &Opts::so_passsec, &Opts::set_so_passsec},
};
struct Number {
  int name;
  uint32_t (Opts::*get)() const;
  void (Opts::*set)(uint32_t);
};
const Number kNumbers[] = {
    {SO_PRIORITY, &Opts::so_priority, &Opts::set_so_priority},
    {SO_RCVLOWAT, &Opts::so_rcvlowat, &Opts::set_so_rcvlowat},
    {SO_MARK, &Opts::so_mark, &Opts::set_so_mark},
    {SO_OOBINLINE, &Opts::so_oobinline, &Opts::set_so_oobinline},
};

uint32_t number(int socket, int name) { return static_cast<uint32_t>(get_int(socket, SOL_SOCKET, name).value_or(0)); }

// The kernel doubles what it is given. Beyond the limits of the host only the host's root may go.
Result<void> set_buffer(int socket, int name, int force, uint32_t size) {
  if (number(socket, name) == size) return {};
  const int half = static_cast<int>(std::min(size, uint32_t{INT32_MAX}) / 2);
  if (set_int(socket, SOL_SOCKET, force, half, "buffer size")) return {};
  TRY(set_int(socket, SOL_SOCKET, name, half, "buffer size"));
  if (number(socket, name) < size - size % 2)
    return fail(Code::kRestoreFailed, cat("a socket buffer of ", size,
                                          " bytes, which is more than this host allows (net.core.wmem_max, rmem_max)"));
  return {};
}

Result<void> restore_extra(int socket, const pb::socket_extra& extra) {
  for (const auto& o : extra.options()) {
    const bool known = std::ranges::find(kOptions, o.name()) != std::end(kOptions);
    if (!known || o.level() != SOL_SOCKET || o.value().size() != sizeof(int))
      return fail(Code::kImageCorrupt, cat("socket option ", o.level(), ":", o.name(), " of file ", extra.file_id()));
    if (::setsockopt(socket, SOL_SOCKET, o.name(), o.value().data(), static_cast<socklen_t>(o.value().size())) < 0)
      return fail_sys(Code::kRestoreFailed, "setsockopt", cat(o.level(), ":", o.name()));
  }
  return {};
}

}  // namespace

Result<void> dump_unix_options(const Candidate& c, const DumpEnv& env, pb::unix_sk_entry& entry, DumpOutput& out) {
  const int socket = c.copy.get();
  Opts& opts = *entry.mutable_opts();
  TRY(dump_common_options(socket, opts));
  for (const auto& f : kFlags)
    if (const auto value = get_int(socket, SOL_SOCKET, f.name)) (opts.*f.set)(*value != 0);
  for (const auto& n : kNumbers)
    if (const auto value = get_int(socket, SOL_SOCKET, n.name)) (opts.*n.set)(static_cast<uint32_t>(*value));

  const Fd fresh(::socket(AF_UNIX, static_cast<int>(entry.type()) | SOCK_CLOEXEC, 0));
  if (!fresh) return fail_sys("socket");
  pb::socket_extra extra;
  extra.set_file_id(entry.id());
  if (const uint32_t uid = TRY(owner_of(c, env)).uid; uid != 0) extra.set_uid(uid);
  for (const int name : kOptions) {
    const auto value = get_int(socket, SOL_SOCKET, name);
    if (!value || value == get_int(fresh.get(), SOL_SOCKET, name)) continue;
    auto& o = *extra.add_options();
    o.set_level(SOL_SOCKET), o.set_name(name);
    o.set_value(std::string(reinterpret_cast<const char*>(&*value), sizeof(*value)));
  }
  if (extra.has_uid() || extra.options_size() > 0) out.images->add_socket_extra(extra);
  return {};
}

Result<void> widen_unix_buffers(int socket) {
  constexpr int kWide = 512 << 20;
  if (!set_int(socket, SOL_SOCKET, kSndBufForce, kWide, "buffer size"))
    TRY(set_int(socket, SOL_SOCKET, SO_SNDBUF, kWide, "buffer size"));  // as far as the host allows
  return {};
}

Result<void> restore_unix_options(int socket, const pb::unix_sk_entry& entry, const pb::socket_extra* extra) {
  const Opts& opts = entry.opts();
  for (const auto& f : kFlags)
    if ((opts.*f.get)() != (number(socket, f.name) != 0))
      TRY(set_int(socket, SOL_SOCKET, f.name, (opts.*f.get)() ? 1 : 0, cat("socket option ", f.name)));
  for (const auto& n : kNumbers) {
    const uint32_t wanted = (opts.*n.get)();
    // An absent number reads as 0, which none of them has unless it is its default.
    if (wanted == 0 || number(socket, n.name) == wanted) continue;
    TRY(set_int(socket, SOL_SOCKET, n.name, static_cast<int>(wanted), cat("socket option ", n.name)));
  }
  TRY(restore_common_options(socket, opts));
  TRY(set_buffer(socket, SO_SNDBUF, kSndBufForce, opts.so_sndbuf()));
  TRY(set_buffer(socket, SO_RCVBUF, kRcvBufForce, opts.so_rcvbuf()));
  if (get_int(socket, SOL_SOCKET, kBufLock))
    TRY(set_int(socket, SOL_SOCKET, kBufLock, static_cast<int>(opts.so_buf_lock() & 3), "SO_BUF_LOCK"));
  if (extra) TRY(restore_extra(socket, *extra));
  return {};
}

}  // namespace stasis::files
