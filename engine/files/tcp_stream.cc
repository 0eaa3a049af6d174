// SPDX-License-Identifier: Apache-2.0
// A TCP connection by TCP_REPAIR: sequence numbers, options, windows, what was received and not read, what was written
// and not acknowledged. A socket in repair mode says nothing to its peer, neither when it connects nor when it closes.
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>

#include <algorithm>
#include <cerrno>

#include "engine/base/io.h"
#include "engine/files/inet_options.h"
#include "engine/files/tcp.h"

namespace stasis::files {
namespace {

constexpr uint32_t kMaxQueue = 1u << 30;  // more than tcp_wmem and tcp_rmem can be
// include/net/tcp.h TCPOPT_*
constexpr uint32_t kMss = 2, kWindow = 3, kSackPermitted = 4, kTimestamp = 8;
constexpr uint8_t kFin = 1, kRst = 4, kAck = 16;

// Half of it is closed by the peer, or by us; our FIN counts as one byte of the sequence, and so does the peer's.
bool fin_received(uint32_t state) { return state == kCloseWait || state == kLastAck || state == kClosing; }
bool fin_sent(uint32_t state) {
  return state == kFinWait1 || state == kFinWait2 || state == kLastAck || state == kClosing;
}

Result<void> set(int socket, int name, int value, std::string_view what) {
  return set_int(socket, IPPROTO_TCP, name, value, what);
}

Result<uint32_t> queue_seq(int socket, int queue) {
  TRY(set(socket, TCP_REPAIR_QUEUE, queue, "TCP_REPAIR_QUEUE"));
  const auto seq = get_int(socket, IPPROTO_TCP, TCP_QUEUE_SEQ);
  if (!seq) return fail_sys("getsockopt(TCP_QUEUE_SEQ)");
  return static_cast<uint32_t>(*seq);
}

Result<uint32_t> count(int socket, unsigned long request) {
  int value = 0;
  if (::ioctl(socket, request, &value) < 0) return fail_sys("ioctl of a queue of a socket");
  return static_cast<uint32_t>(std::max(value, 0));
}

Result<std::string> peek(int socket, uint32_t size) {
  std::string bytes(size, '\0');
  if (size == 0) return bytes;
  const ssize_t n = ::recv(socket, bytes.data(), size, MSG_PEEK | MSG_DONTWAIT);
  if (n < 0 || static_cast<size_t>(n) != size)
    return n < 0 ? fail_sys("look into a queue of a socket")
                 : fail(Code::kInternal, cat("a queue of ", size, " bytes gave ", n));
  return bytes;
}

Result<void> write_stream(const pb::inet_sk_entry& isk, const TcpStream& stream, DumpOutput& out) {
  auto file = TRY(out.images->open(image::Kind::kTcpStream, stream_image(isk)));
  TRY(file.append(stream.entry));
  TRY(file.append_payload(stream.in.data(), stream.in.size()));
  TRY(file.append_payload(stream.out.data(), stream.out.size()));
  return file.close();
}

Result<void> dump_out_queue(int socket, uint32_t state, TcpStream& s) {
  s.entry.set_outq_seq(TRY(queue_seq(socket, TCP_SEND_QUEUE)));
  uint32_t all = TRY(count(socket, SIOCOUTQ)), unsent = TRY(count(socket, SIOCOUTQNSD));
  if (fin_sent(state)) all -= all > 0, unsent -= unsent > 0;  // the FIN is no data
  s.out = TRY(peek(socket, all));
  s.entry.set_outq_len(all), s.entry.set_unsq_len(std::min(unsent, all));
  return {};
}

Result<void> dump_windows(int socket, pb::tcp_stream_entry& entry) {
  tcp_repair_window window{};
  socklen_t size = sizeof(window);
  if (::getsockopt(socket, IPPROTO_TCP, TCP_REPAIR_WINDOW, &window, &size) < 0)
    return fail_sys("getsockopt(TCP_REPAIR_WINDOW)");
  entry.set_snd_wl1(window.snd_wl1), entry.set_snd_wnd(window.snd_wnd), entry.set_max_window(window.max_window);
  entry.set_rcv_wnd(window.rcv_wnd), entry.set_rcv_wup(window.rcv_wup);
  return {};
}

std::unexpected<Error> corrupt(const std::string& name, std::string_view what) {
  return fail(Error(Code::kImageCorrupt, cat(name, ": ", what)).about(name));
}

// Room for a queue that is put back at once; the sizes of the images are set again afterwards.
Result<void> make_room(int socket, int name, int force, size_t bytes) {
  const auto need = static_cast<int>(bytes * 2 + (128u << 10));
  if (bytes == 0 || get_int(socket, SOL_SOCKET, name).value_or(0) >= need) return {};
  if (::setsockopt(socket, SOL_SOCKET, force, &need, sizeof(need)) == 0) return {};
  return set_int(socket, SOL_SOCKET, name, need, "buffer size");
}

Result<void> fill(int socket, std::string_view bytes) {
  constexpr size_t kChunk = 32u << 10;
  while (!bytes.empty()) {
    const ssize_t n = ::send(socket, bytes.data(), std::min(bytes.size(), kChunk), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n <= 0) return fail_sys(Code::kRestoreFailed, "fill a queue of a TCP connection", cat(bytes.size(), " bytes"));
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return {};
}

Result<void> start_queue(int socket, int queue, uint32_t seq) {
  TRY(set(socket, TCP_REPAIR_QUEUE, queue, "TCP_REPAIR_QUEUE"));
  return set(socket, TCP_QUEUE_SEQ, static_cast<int>(seq), "TCP_QUEUE_SEQ");
}

// Repair mode lets it in beside the listening socket, and has connect(2) send nothing.
Result<void> bind_and_connect(int socket, Address& local, Address* peer) {
  auto refused = [&](std::string_view call, Address& address) {
    const int error = errno;
    const std::string where = cat("TCP ", address.text());
    std::string_view why = "";
    if (error == EADDRNOTAVAIL) why = "; no network device here has this address: give it to one, or use --tcp-close";
    errno = error;
    const Error base = Error::sys(Code::kRestoreFailed, call, where);
    return fail(Error(base.code(), cat(base.message(), why)).about(where).with_errno(error));
  };
  if (::bind(socket, local.get(), local.size) < 0) return refused("bind", local);
  if (peer && ::connect(socket, peer->get(), peer->size) < 0) return refused("connect", *peer);
  return {};
}

Result<void> restore_options(int socket, const pb::tcp_stream_entry& entry) {
  std::vector<tcp_repair_opt> options;
  if (entry.opt_mask() & TCPI_OPT_SACK) options.push_back({kSackPermitted, 0});
  if (entry.opt_mask() & TCPI_OPT_WSCALE) options.push_back({kWindow, entry.snd_wscale() | entry.rcv_wscale() << 16});
  if (entry.opt_mask() & TCPI_OPT_TIMESTAMPS) options.push_back({kTimestamp, 0});
  options.push_back({kMss, entry.mss_clamp()});
  if (::setsockopt(socket, IPPROTO_TCP, TCP_REPAIR_OPTIONS, options.data(),
                   static_cast<socklen_t>(options.size() * sizeof(tcp_repair_opt))) < 0)
    return fail_sys(Code::kRestoreFailed, "setsockopt(TCP_REPAIR_OPTIONS)");
  if (entry.has_timestamp()) TRY(set(socket, TCP_TIMESTAMP, static_cast<int>(entry.timestamp()), "TCP_TIMESTAMP"));
  return {};
}

Result<void> set_windows(int socket, const tcp_repair_window& window) {
  if (::setsockopt(socket, IPPROTO_TCP, TCP_REPAIR_WINDOW, &window, sizeof(window)) < 0)
    return fail_sys(Code::kRestoreFailed, "setsockopt(TCP_REPAIR_WINDOW)");
  return {};
}

Result<void> await_state(int socket, uint32_t state) {
  constexpr timespec kPause{0, 1'000'000};
  for (int i = 0; i < 2000; ++i) {
    if (TRY(tcp_state(socket, "connection")) == state) return {};
    nanosleep(&kPause, nullptr);
  }
  return fail(Code::kRestoreFailed,
              cat("a TCP connection does not get into state ", kTcpStates[state], "; is the loopback device up?"));
}

// Puts a connection together, piece by piece.
struct Builder {
  int socket;
  uint32_t state;
  Address &local, &peer;
  const TcpStream& stream;
  uint32_t in_start, out_start;

  // The windows of the images; with room for a packet of ours if `open`, and for none of the peer's if `shut`.
  tcp_repair_window windows(bool open, bool shut) const {
    const auto& e = stream.entry;
    tcp_repair_window w{e.snd_wl1(), e.snd_wnd(), e.max_window(), e.rcv_wnd(), e.rcv_wup()};
    const uint32_t received = in_start + e.inq_len();
    if (open) w.rcv_wup = received, w.rcv_wnd = 0xffff, w.snd_wl1 = in_start;
    if (shut) w.snd_wnd = 0;
    return w;
  }

  Result<void> receive(uint8_t flags, uint32_t ack, uint32_t next) {
    TRY(set_windows(socket, windows(true, false)));
    const uint32_t scaled = stream.entry.snd_wnd() >> std::min(stream.entry.snd_wscale(), 14u);
    TRY(inject(peer, local,
               {in_start + stream.entry.inq_len(), ack, flags, static_cast<uint16_t>(std::min(scaled, 0xffffu))}));
    return await_state(socket, next);
  }

  // What was never sent: with the peer's window shut it stays where it is until the connection is let go.
  Result<void> queue_unsent(std::string_view bytes, bool fin) {
    TRY(set_windows(socket, windows(true, true)));
    TRY(set(socket, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP, "TCP_REPAIR"));
    auto filled = fill(socket, bytes);
    if (filled && fin && ::shutdown(socket, SHUT_WR) < 0) filled = fail_sys(Code::kRestoreFailed, "shutdown");
    TRY(set(socket, TCP_REPAIR, TCP_REPAIR_ON, "TCP_REPAIR"));
    return filled;
  }

  Result<void> write_and_close() {
    const auto& e = stream.entry;
    const uint32_t unsent = e.unsq_len();
    TRY(set(socket, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE, "TCP_REPAIR_QUEUE"));
    TRY(fill(socket, std::string_view(stream.out).substr(0, e.outq_len() - unsent)));
    if (unsent > 0) return queue_unsent(std::string_view(stream.out).substr(e.outq_len() - unsent), fin_sent(state));
    // Taken for sent, as the bytes before it: if it is lost it is sent again.
    if (fin_sent(state) && ::shutdown(socket, SHUT_WR) < 0) return fail_sys(Code::kRestoreFailed, "shutdown");
    return {};
  }

  Result<void> run() {
    const bool first = state == kCloseWait || state == kLastAck;
    TRY(set(socket, TCP_REPAIR_QUEUE, TCP_RECV_QUEUE, "TCP_REPAIR_QUEUE"));
    TRY(fill(socket, stream.in));
    if (first) TRY(receive(kFin | kAck, out_start, kCloseWait));
    TRY(write_and_close());
    if (state == kFinWait2) TRY(receive(kAck, stream.entry.outq_seq(), kFinWait2));
    if (state == kClosing) TRY(receive(kFin | kAck, out_start, kClosing));
    if (stream.entry.has_snd_wnd()) TRY(set_windows(socket, windows(false, false)));
    return await_state(socket, state);
  }
};

Result<void> leave_ended(int socket, const pb::inet_sk_entry& isk) {
  TRY(set(socket, TCP_REPAIR_QUEUE, TCP_NO_QUEUE, "TCP_REPAIR_QUEUE"));
  TRY(set(socket, TCP_REPAIR, TCP_REPAIR_OFF, "TCP_REPAIR"));
  TRY(set_int(socket, SOL_SOCKET, SO_REUSEADDR, isk.opts().reuseaddr(), "SO_REUSEADDR"));
  (void)::shutdown(socket, SHUT_RDWR);  // says ENOTCONN, and does it
  return {};
}

Result<void> read_stream(const Candidate& c, uint32_t state, const pb::inet_sk_entry& isk, DumpOutput& out) {
  const int socket = c.copy.get();
  TcpStream s;
  auto& e = s.entry;
  e.set_inq_seq(0), e.set_outq_seq(0), e.set_outq_len(0), e.set_opt_mask(0), e.set_snd_wscale(0), e.set_mss_clamp(0);
  const uint32_t unread = TRY(count(socket, SIOCINQ));
  if (state == kClose && unread == 0) return {};
  if (state != kClose) {
    e.set_inq_seq(TRY(queue_seq(socket, TCP_RECV_QUEUE)));
    tcp_info info{};
    socklen_t size = sizeof(info);
    if (::getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &size) < 0) return fail_sys("getsockopt(TCP_INFO)");
    e.set_opt_mask(info.tcpi_options);
    e.set_snd_wscale(info.tcpi_snd_wscale), e.set_rcv_wscale(info.tcpi_rcv_wscale);
    e.set_mss_clamp(static_cast<uint32_t>(get_int(socket, IPPROTO_TCP, TCP_MAXSEG).value_or(536)));
    if (info.tcpi_options & TCPI_OPT_TIMESTAMPS)
      e.set_timestamp(static_cast<uint32_t>(get_int(socket, IPPROTO_TCP, TCP_TIMESTAMP).value_or(0)));
    e.set_cork(get_int(socket, IPPROTO_TCP, TCP_CORK).value_or(0) != 0);
    e.set_nodelay(get_int(socket, IPPROTO_TCP, TCP_NODELAY).value_or(0) != 0);
    TRY(dump_windows(socket, e));
  }
  s.in = TRY(peek(socket, unread));
  e.set_inq_len(unread);
  if (state != kClose) TRY(dump_out_queue(socket, state, s));
  return write_stream(isk, s, out);
}

}  // namespace

std::string stream_image(const pb::inet_sk_entry& isk) { return cat("tcp-stream-", hex(isk.ino()).substr(2), ".img"); }

Result<void> dump_stream(const Candidate& c, uint32_t state, const pb::inet_sk_entry& isk, const DumpEnv& env,
                         DumpOutput& out) {
  if (state == kClose) return read_stream(c, state, isk, out);
  if (!env.connections || !env.connections->contains(c.st.st_ino))
    return fail(Code::kInternal, cat(c.name(), " was not locked"));
  const int socket = c.copy.get();
  TRY_CTX(set(socket, TCP_REPAIR, TCP_REPAIR_ON, "TCP_REPAIR"), c.name());
  auto result = read_stream(c, state, isk, out);
  (void)set(socket, TCP_REPAIR_QUEUE, TCP_NO_QUEUE, "TCP_REPAIR_QUEUE");
  (void)set(socket, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP, "TCP_REPAIR");
  const bool reuse = env.connections->at(c.st.st_ino).reuse;  // it forgets that
  (void)set_int(socket, SOL_SOCKET, SO_REUSEADDR, reuse, "SO_REUSEADDR");
  return result;
}

Result<TcpStream> load_stream(const image::Reader& images, const pb::inet_sk_entry& isk) {
  const std::string name = stream_image(isk);
  auto reader = TRY(images.records(image::Kind::kTcpStream, name));
  TcpStream s;
  if (!TRY(reader.next(s.entry))) return corrupt(name, "no entry");
  const auto& e = s.entry;
  if (e.inq_len() > kMaxQueue || e.outq_len() > kMaxQueue || reader.remaining() != uint64_t{e.inq_len()} + e.outq_len())
    return corrupt(name, "lengths of the queues");
  if (e.unsq_len() > e.outq_len()) return corrupt(name, "more unsent than written");
  if (e.snd_wscale() > 14 || e.rcv_wscale() > 14 || e.mss_clamp() > 0xffff) return corrupt(name, "options");
  if (e.max_window() < e.snd_wnd()) return corrupt(name, "windows");
  if (isk.state() == kSynSent && reader.remaining() > 0) return corrupt(name, "data before there is a connection");
  for (auto [bytes, size] : {std::pair{&s.in, e.inq_len()}, {&s.out, e.outq_len()}})
    while (bytes->size() < size) *bytes += TRY(reader.payload(std::min<uint64_t>(size - bytes->size(), 1u << 20)));
  return s;
}

namespace {

Result<void> start_repair(int socket, Address& local) {
  if (auto on = set(socket, TCP_REPAIR, TCP_REPAIR_ON, "TCP_REPAIR"); !on)
    return fail(Error(Code::kPermission, cat("TCP ", local.text(), ": connections need CAP_NET_ADMIN in the network ",
                                             "namespace: ", on.error().message()))
                    .about(cat("TCP ", local.text())));
  return {};
}

}  // namespace

Result<void> restore_stream(int socket, const pb::inet_sk_entry& isk, Address& local, Address& peer,
                            const TcpStream& stream) {
  const auto& e = stream.entry;
  const uint32_t state = isk.state();
  Builder b{.socket = socket,
            .state = state,
            .local = local,
            .peer = peer,
            .stream = stream,
            .in_start = e.inq_seq() - e.inq_len() - fin_received(state),
            .out_start = e.outq_seq() - e.outq_len() - fin_sent(state)};
  TRY(start_repair(socket, local));
  TRY(set_guard(socket));
  TRY(make_room(socket, SO_RCVBUF, 33 /*RCVBUFFORCE*/, stream.in.size()));
  TRY(make_room(socket, SO_SNDBUF, 32 /*SNDBUFFORCE*/, stream.out.size()));
  TRY(start_queue(socket, TCP_RECV_QUEUE, b.in_start));
  TRY(start_queue(socket, TCP_SEND_QUEUE, b.out_start));
  // Later the kernel would go on with the segments it has computed.
  if (e.mss_clamp() >= 88 && e.mss_clamp() <= 32767) (void)set(socket, TCP_MAXSEG, static_cast<int>(e.mss_clamp()), "");
  TRY(bind_and_connect(socket, local, &peer));
  TRY(restore_options(socket, e));
  TRY_CTX(b.run(), "TCP connection ", local.text(), " - ", peer.text());
  return restore_buffers(socket, isk.opts());
}

Result<void> restore_connecting(int socket, const pb::inet_sk_entry& isk, Address& local, const TcpStream& stream) {
  TRY(start_repair(socket, local));
  // connect(2) goes on from a sequence number that is set. The peer may have seen the SYN, which counts as one.
  TRY(start_queue(socket, TCP_SEND_QUEUE, stream.entry.outq_seq() - 1));
  TRY(bind_and_connect(socket, local, nullptr));
  TRY(set(socket, TCP_REPAIR_QUEUE, TCP_NO_QUEUE, "TCP_REPAIR_QUEUE"));
  TRY(set(socket, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP, "TCP_REPAIR"));
  return set_int(socket, SOL_SOCKET, SO_REUSEADDR, isk.opts().reuseaddr(), "SO_REUSEADDR");
}

Result<void> restore_closed(int socket, const pb::inet_sk_entry& isk, Address& local, bool address_may_be_gone) {
  TRY(set(socket, TCP_REPAIR, TCP_REPAIR_ON, "TCP_REPAIR"));
  auto bound = isk.src_port() == 0 ? Result<void>() : bind_and_connect(socket, local, nullptr);
  if (!bound && !(address_may_be_gone && bound.error().sys_errno() == EADDRNOTAVAIL)) return bound;
  return leave_ended(socket, isk);
}

Result<void> restore_ended(int socket, const pb::inet_sk_entry& isk, Address& local, Address& peer,
                           const std::string& in) {
  // A connection that is reset at once keeps what it has received.
  TRY(set(socket, TCP_REPAIR, TCP_REPAIR_ON, "TCP_REPAIR"));
  TRY(set_guard(socket));
  TRY(make_room(socket, SO_RCVBUF, 33 /*RCVBUFFORCE*/, in.size()));
  TRY(start_queue(socket, TCP_RECV_QUEUE, 1));
  TRY(start_queue(socket, TCP_SEND_QUEUE, 1));
  TRY(bind_and_connect(socket, local, &peer));
  TRY(set(socket, TCP_REPAIR_QUEUE, TCP_RECV_QUEUE, "TCP_REPAIR_QUEUE"));
  TRY(fill(socket, in));
  const auto next = static_cast<uint32_t>(1 + in.size());
  TRY(set_windows(socket, {1, 0xffff, 0xffff, 0xffff, next}));
  TRY(inject(peer, local, {next, 1, kRst, 0}));
  TRY(await_state(socket, kClose));
  (void)get_int(socket, SOL_SOCKET, SO_ERROR);
  TRY(set_filter(socket, filter_from(isk.opts())));
  TRY(restore_buffers(socket, isk.opts()));
  return leave_ended(socket, isk);
}

}  // namespace stasis::files
