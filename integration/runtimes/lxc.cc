// SPDX-License-Identifier: Apache-2.0
#include "integration/runtimes/lxc.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>

#include "engine/base/fd.h"
#include "engine/base/spawn.h"
#include "integration/config/text.h"
#include "integration/runtimes/places.h"

namespace stasis::integration::runtimes {
namespace {

constexpr int kPatienceMs = 10000;  // for a monitor that hangs

// Ends, and is waited for, in any case.
class Child {
 public:
  explicit Child(pid_t pid) : pid_(pid) {}
  Child(const Child&) = delete;
  ~Child() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    (void)wait();
  }
  int wait() {
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = 0;
    return status;
  }

 private:
  pid_t pid_;
};

Result<std::string> read_answer(int fd) {
  std::string out;
  for (;;) {
    pollfd event{fd, POLLIN, 0};
    const int ready = ::poll(&event, 1, kPatienceMs);
    if (ready < 0 && errno == EINTR) continue;
    if (ready < 0) return fail_sys("poll");
    if (ready == 0) return fail(Code::kTimeout, "lxc-info does not answer");
    char buffer[256];
    const ssize_t n = ::read(fd, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_sys("read", "lxc-info");
    if (n == 0) return out;
    out.append(buffer, static_cast<size_t>(n));
    if (out.size() > 4096) return fail(Code::kBadDescription, "lxc-info says more than a pid");
  }
}

// What it prints; empty when the container does not run.
Result<std::string> ask_monitor(const FindOptions& options, const std::string& path, const std::string& name) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) < 0) return fail_sys("pipe2");
  Fd from(ends[0]), to(ends[1]);
  SpawnSetup setup;
  ::posix_spawn_file_actions_addopen(&setup.actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_adddup2(&setup.actions, to.get(), STDOUT_FILENO);
  ::posix_spawn_file_actions_addopen(&setup.actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  std::string words[] = {options.lxc_info, "-P", path, "-n", name, "-p", "-H"};
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  pid_t pid = 0;
  const int error = ::posix_spawnp(&pid, argv[0], &setup.actions, &setup.attributes, argv.data(), environ);
  if (error != 0) {
    errno = error;
    return fail_sys("execute", options.lxc_info);
  }
  Child child(pid);
  to.reset();
  return read_answer(from.get());
}

}  // namespace

std::string lxcpath_of(std::string_view lxc_conf) {
  for (std::string_view line : lines(lxc_conf)) {
    const size_t equals = line.find('=');
    if (equals != std::string_view::npos && trim(line.substr(0, equals)) == "lxc.lxcpath")
      return std::string(trim(line.substr(equals + 1)));
  }
  return {};
}

std::vector<std::string> lxc_paths(const FindOptions& options) {
  if (!options.root.empty()) return {options.root};
  auto text = config::read_text(cat(options.host, "/etc/lxc/lxc.conf"));
  const std::string path = text ? lxcpath_of(*text) : "";
  return {path.empty() ? cat(options.host, "/var/lib/lxc") : path};
}

Result<std::optional<Container>> find_lxc(const std::string& name, const FindOptions& options) {
  if (!valid_id(name)) return std::optional<Container>();
  for (const std::string& path : lxc_paths(options)) {
    Container container;
    container.id = name;
    container.runtime = "lxc";
    container.bundle = container.state_dir = cat(path, "/", name);
    container.config = cat(container.bundle, "/config");
    container.cgroup_path = cat("/lxc.payload.", name);
    if (::access(container.config.c_str(), F_OK) != 0) continue;
    const std::string answer = TRY_CTX(ask_monitor(options, path, name), "lxc container ", name);
    const std::string_view text = trim(answer);
    if (!text.empty()) {
      const auto pid = parse_int<pid_t>(text);
      if (!pid || *pid < 1)
        return fail(Error(Code::kBadDescription, cat("lxc-info says ", json_quote(text), " where a pid should be"))
                        .about(container.config));
      container.pid = *pid;
    }
    TRY(check_alive(container, options));
    return std::optional(std::move(container));
  }
  return std::optional<Container>();
}

}  // namespace stasis::integration::runtimes
