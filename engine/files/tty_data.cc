// SPDX-License-Identifier: Apache-2.0
// What is inside a pseudo terminal. The kernel shows it only to who takes it out, so it is taken out and put back while
// everybody stands still. Settings are changed for that moment: nothing may be echoed, translated or taken for a
// signal, but lines stay lines. drivers/tty/n_tty.c.
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "engine/base/io.h"
#include "engine/base/log.h"
#include "engine/files/tty.h"

namespace stasis::files {
namespace {

constexpr size_t kMost = 1u << 20;
constexpr timespec kPause{0, 2'000'000};

Result<struct termios> settings(int fd, const std::string& name) {
  struct termios t {};
  if (::ioctl(fd, TCGETS, &t) < 0) return fail_sys("ioctl(TCGETS)", name);
  return t;
}

// Other settings for as long as this lives.
class Settings {
 public:
  static Result<Settings> change(int fd, const struct termios& before, const struct termios& now,
                                 const std::string& name) {
    if (::ioctl(fd, TCSETS, &now) < 0) return fail_sys("ioctl(TCSETS)", name);
    return Settings(fd, before);
  }
  Settings(Settings&& o) noexcept : fd_(std::exchange(o.fd_, -1)), before_(o.before_) {}
  Settings& operator=(Settings&&) = delete;
  ~Settings() {
    if (fd_ >= 0) (void)::ioctl(fd_, TCSETS, &before_);
  }

 private:
  Settings(int fd, const struct termios& before) : fd_(fd), before_(before) {}
  int fd_;
  struct termios before_;
};

class Nonblocking {
 public:
  explicit Nonblocking(int fd) : fd_(fd), before_(::fcntl(fd, F_GETFL)) { ::fcntl(fd_, F_SETFL, before_ | O_NONBLOCK); }
  Nonblocking(const Nonblocking&) = delete;
  ~Nonblocking() { ::fcntl(fd_, F_SETFL, before_); }

 private:
  int fd_, before_;
};

bool is_line_end(char c, const struct termios& t) {
  return c == '\n' || (c != 0 && (c == static_cast<char>(t.c_cc[VEOL]) || c == static_cast<char>(t.c_cc[VEOL2])));
}

// Data that are not taken for commands. Flow control stays if none of them is one: in packet mode the master is told of
// a change.
struct termios literal(struct termios t, const std::string& data) {
  const bool flow = data.find(static_cast<char>(t.c_cc[VSTART])) == std::string::npos &&
                    data.find(static_cast<char>(t.c_cc[VSTOP])) == std::string::npos;
  t.c_iflag &= flow ? static_cast<tcflag_t>(IXON) : 0;
  t.c_lflag &= ~static_cast<tcflag_t>(ECHO | ECHOE | ECHOK | ECHONL | ECHOCTL | ECHOPRT | ECHOKE | ISIG | TOSTOP);
  for (const int i : {VINTR, VQUIT, VERASE, VKILL, VEOF, VSUSP, VREPRINT, VWERASE, VLNEXT}) t.c_cc[i] = 0;
  if (!flow) t.c_cc[VSTART] = t.c_cc[VSTOP] = 0;
  return t;
}

Result<std::string> drain(int fd, const std::string& name) {
  std::string out;
  char bytes[4096];
  while (out.size() < kMost) {
    const ssize_t n = ::read(fd, bytes, sizeof bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno != EAGAIN && errno != EIO) return fail_sys("read", name);
    if (n <= 0) break;
    out.append(bytes, static_cast<size_t>(n));
  }
  return out;
}

int queued(int fd) {
  int n = 0;
  return ::ioctl(fd, TIOCINQ, &n) < 0 ? 0 : n;
}

// Without the right to type for others: through the other end, which takes its time.
Result<void> type_by_master(int slave, int master, const std::string& data, const struct termios& t,
                            const std::string& name) {
  const Nonblocking nonblocking(master);
  const int before = queued(slave);
  TRY(write_full(master, data.data(), data.size(), name));
  size_t readable = data.size();
  if (t.c_lflag & ICANON)
    while (readable > 0 && !is_line_end(data[readable - 1], t)) --readable;
  for (int i = 0; i < 500 && queued(slave) < before + static_cast<int>(readable); ++i) {
    pollfd item{slave, POLLIN, 0};
    (void)::poll(&item, 1, 0);  // which also makes the kernel move what is under way
    ::nanosleep(&kPause, nullptr);
  }
  if (readable == data.size()) return {};
  // A line that is not yet ended cannot be counted.
  for (int i = 0; i < 10; ++i) ::nanosleep(&kPause, nullptr);
  return {};
}

}  // namespace

Result<void> put_input(int slave, int master, const std::string& data, const std::string& name) {
  if (data.empty()) return {};
  const auto before = TRY(settings(slave, name));
  const auto quiet = TRY(Settings::change(slave, before, literal(before, data), name));
  for (size_t i = 0; i < data.size(); ++i) {
    if (::ioctl(slave, TIOCSTI, &data[i]) == 0) continue;
    if (i > 0 || master < 0) return fail_sys("ioctl(TIOCSTI)", name);
    return type_by_master(slave, master, data, before, name);
  }
  return {};
}

Result<std::string> peek_input(int slave, const std::string& name) {
  const auto before = TRY(settings(slave, name));
  const Fd reader = TRY(open_at(AT_FDCWD, cat("/proc/self/fd/", slave), O_RDWR | O_NOCTTY | O_NONBLOCK));
  std::string data;
  bool ended_by_eof = false;
  if (before.c_lflag & ICANON) {
    data = TRY(drain(reader.get(), name));
    ended_by_eof = !data.empty() && !is_line_end(data.back(), before);
  } else if (queued(slave) == 0) {
    return data;
  }
  {
    auto raw = before;
    raw.c_lflag &= ~static_cast<tcflag_t>(ICANON);
    raw.c_cc[VMIN] = 1, raw.c_cc[VTIME] = 0;
    const auto open = TRY(Settings::change(reader.get(), before, raw, name));
    data += TRY(drain(reader.get(), name));  // also the line that is not yet ended
  }
  TRY(put_input(reader.get(), -1, data, name));
  if (ended_by_eof)
    return fail(
        Error(Code::kUnsupportedFile, cat(name, " holds an end of file that was typed and not read yet")).about(name));
  return data;
}

Result<void> put_output(int slave, const std::string& data, const std::string& name) {
  if (data.empty()) return {};
  const auto before = TRY(settings(slave, name));
  auto plain = before;
  plain.c_oflag = 0, plain.c_lflag &= ~static_cast<tcflag_t>(TOSTOP);
  const auto literal = TRY(Settings::change(slave, before, plain, name));
  const Fd writer = TRY(open_at(AT_FDCWD, cat("/proc/self/fd/", slave), O_RDWR | O_NOCTTY | O_NONBLOCK));
  auto written = write_full(writer.get(), data.data(), data.size(), name);
  if (written || written.error().sys_errno() != EAGAIN) return written;
  // Somebody has typed ^S: data come before that.
  log::warning(name, " was stopped (^S) and goes on, ignoring");
  if (::ioctl(slave, TCXONC, TCOOFF) < 0 || ::ioctl(slave, TCXONC, TCOON) < 0) return fail_sys("ioctl(TCXONC)", name);
  return write_full(writer.get(), data.data(), data.size(), name);
}

Result<std::string> peek_output(int master, const std::string& name) {
  const int off = 0, on = 1;
  int packets = 0;
  pollfd item{master, POLLIN, 0};
  if (::poll(&item, 1, 0) < 0) return fail_sys("poll", name);
  if (!(item.revents & POLLIN)) return std::string();
  if (queued(master) == 0) return std::string();  // news of packet mode, or the end of file
  (void)::ioctl(master, TIOCGPKT, &packets);
  const Fd slave(::ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_NONBLOCK));
  if (!slave) return fail_sys("ioctl(TIOCGPTPEER)", name);
  if (packets && ::ioctl(master, TIOCPKT, &off) < 0) return fail_sys("ioctl(TIOCPKT)", name);
  auto data = [&] {
    const Nonblocking nonblocking(master);
    return drain(master, name);
  }();
  Result<void> back = data ? put_output(slave.get(), *data, name) : Result<void>();
  if (packets && ::ioctl(master, TIOCPKT, &on) < 0) return fail_sys("ioctl(TIOCPKT)", name);
  if (!back) return fail(back.error());
  return data;
}

}  // namespace stasis::files
