// SPDX-License-Identifier: Apache-2.0
#include "engine/files/socket_options.h"

#include <sys/socket.h>
#include <sys/time.h>

#include "engine/files/inet_options.h"

namespace stasis::files {
namespace {

Result<timeval> get_timeout(int socket, int name) {
  timeval value{};
  socklen_t size = sizeof(value);
  if (::getsockopt(socket, SOL_SOCKET, name, &value, &size) < 0) return fail_sys("getsockopt", "timeout");
  return value;
}

}  // namespace

Result<void> dump_common_options(int socket, pb::sk_opts_entry& opts) {
  opts.set_so_sndbuf(static_cast<uint32_t>(get_int(socket, SOL_SOCKET, SO_SNDBUF).value_or(0)));
  opts.set_so_rcvbuf(static_cast<uint32_t>(get_int(socket, SOL_SOCKET, SO_RCVBUF).value_or(0)));
  if (const auto lock = get_int(socket, SOL_SOCKET, kBufLock)) opts.set_so_buf_lock(static_cast<uint32_t>(*lock));
  const timeval send = TRY(get_timeout(socket, SO_SNDTIMEO)), receive = TRY(get_timeout(socket, SO_RCVTIMEO));
  opts.set_so_snd_tmo_sec(static_cast<uint64_t>(send.tv_sec));
  opts.set_so_snd_tmo_usec(static_cast<uint64_t>(send.tv_usec));
  opts.set_so_rcv_tmo_sec(static_cast<uint64_t>(receive.tv_sec));
  opts.set_so_rcv_tmo_usec(static_cast<uint64_t>(receive.tv_usec));
  linger slow{};
  socklen_t size = sizeof(slow);
  if (::getsockopt(socket, SOL_SOCKET, SO_LINGER, &slow, &size) == 0 && slow.l_onoff)
    opts.set_so_linger(static_cast<uint32_t>(slow.l_linger));
  return {};
}

Result<void> restore_common_options(int socket, const pb::sk_opts_entry& opts) {
  const timeval send{static_cast<time_t>(opts.so_snd_tmo_sec()), static_cast<suseconds_t>(opts.so_snd_tmo_usec())};
  const timeval receive{static_cast<time_t>(opts.so_rcv_tmo_sec()), static_cast<suseconds_t>(opts.so_rcv_tmo_usec())};
  if (::setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &send, sizeof(send)) < 0 ||
      ::setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &receive, sizeof(receive)) < 0)
    return fail_sys(Code::kRestoreFailed, "setsockopt", "timeout");
  if (opts.has_so_linger()) {
    const linger slow{1, static_cast<int>(opts.so_linger())};
    if (::setsockopt(socket, SOL_SOCKET, SO_LINGER, &slow, sizeof(slow)) < 0)
      return fail_sys(Code::kRestoreFailed, "setsockopt", "SO_LINGER");
  }
  return {};
}

}  // namespace stasis::files
