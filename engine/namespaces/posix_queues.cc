// SPDX-License-Identifier: Apache-2.0
#include "engine/namespaces/posix_queues.h"

#include <fcntl.h>
#include <mqueue.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <memory>
#include <set>
#include <vector>

#include "engine/base/io.h"
#include "engine/base/log.h"
#include "engine/namespaces/namespaces.h"
#include "proto/mqueue.pb.h"

namespace stasis::namespaces {
namespace {

// ipc/mqueue.c, include/linux/ipc_namespace.h HARD_MSGMAX, HARD_MSGSIZEMAX
constexpr uint32_t kMostMessages = 65536, kLargestMessage = 16u << 20, kMostNames = 1u << 20;

std::string image_name(uint32_t id) { return cat("mqueue-", id, ".img"); }
std::string shown(const std::string& name) { return cat("POSIX message queue /", name); }

struct Message {
  unsigned priority;
  std::string text;
};

// All that can be: what one message lacks the next may have.
Result<void> send_all(int fd, const std::vector<Message>& messages, const std::string& name) {
  Result<void> result;
  for (const auto& m : messages)
    if (::mq_send(fd, m.text.data(), m.text.size(), m.priority) < 0 && result)
      result = fail_sys("put back a message into", shown(name));
  return result;
}

// The highest priority first, and the oldest of each: sent again in this order, they lie in it.
Result<std::vector<Message>> take_all(int fd, const mq_attr& attributes, const std::string& name) {
  const auto size = static_cast<size_t>(attributes.mq_msgsize);
  const auto buffer = std::make_unique_for_overwrite<char[]>(size);
  std::vector<Message> out;
  out.reserve(static_cast<size_t>(attributes.mq_curmsgs));
  for (long i = 0; i < attributes.mq_curmsgs; ++i) {
    Message m{};
    const ssize_t n = ::mq_receive(fd, buffer.get(), size, &m.priority);
    if (n < 0 && errno == EAGAIN) break;  // somebody outside has taken one
    if (n < 0) {
      auto failed = fail_sys("mq_receive", shown(name));
      TRY(send_all(fd, out, name));
      return failed;
    }
    m.text.assign(buffer.get(), static_cast<size_t>(n));
    out.push_back(std::move(m));
  }
  return out;
}

Result<std::vector<Message>> look_at_all(int fd, const mq_attr& attributes, const std::string& name) {
  auto messages = TRY(take_all(fd, attributes, name));
  TRY(send_all(fd, messages, name));
  return messages;
}

std::string_view value_of(std::string_view text, std::string_view key) {
  const auto at = text.find(key);
  return at == std::string_view::npos ? std::string_view() : trim(text.substr(at + key.size(), 11));
}

bool is_name(const std::string& name) {
  return !name.empty() && name.size() <= NAME_MAX && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\0", 2)) == std::string::npos;
}

// The limit of a user's bytes in queues counts for root too.
class RaisedLimit {
 public:
  RaisedLimit() {
    if (::getrlimit(RLIMIT_MSGQUEUE, &before_) < 0) return;
    const rlimit highest{RLIM_INFINITY, RLIM_INFINITY}, allowed{before_.rlim_max, before_.rlim_max};
    if (::setrlimit(RLIMIT_MSGQUEUE, &highest) < 0) (void)::setrlimit(RLIMIT_MSGQUEUE, &allowed);
    known_ = true;
  }
  ~RaisedLimit() {
    if (known_) (void)::setrlimit(RLIMIT_MSGQUEUE, &before_);
  }
  RaisedLimit(const RaisedLimit&) = delete;
  RaisedLimit& operator=(const RaisedLimit&) = delete;

 private:
  rlimit before_{};
  bool known_ = false;
};

Result<Fd> create(const pb::mqueue_attr& queue, const std::string& name) {
  mq_attr attributes{};
  attributes.mq_maxmsg = queue.max_messages(), attributes.mq_msgsize = queue.max_size();
  Fd fd(::mq_open(cat("/", name).c_str(), O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK, 0600, &attributes));
  if (!fd && errno == EEXIST) return fail_sys(Code::kRestoreFailed, "mq_open", shown(name));
  if (!fd && errno == EMFILE)
    return fail(Error(Code::kRlimit, cat(shown(name), " is beyond the limit here (RLIMIT_MSGQUEUE)")).about(name));
  if (!fd && (errno == EINVAL || errno == ENOSPC))
    return fail(Error(Code::kRestoreFailed, cat(shown(name), " with ", queue.max_messages(), " messages of ",
                                                queue.max_size(), " bytes is beyond fs.mqueue.* of the container"))
                    .about(name));
  if (!fd) return fail_sys("mq_open", shown(name));
  if (::fchown(fd.get(), queue.uid(), queue.gid()) < 0) return fail_sys("fchown", shown(name));
  if (::fchmod(fd.get(), queue.mode()) < 0) return fail_sys("fchmod", shown(name));
  return fd;
}

// Calls `begin` for each queue and `message` for each message, all of them checked.
template <class Begin, class OnMessage>
Result<void> read_image(const image::Reader& images, uint32_t id, Begin begin, OnMessage message) {
  auto file = TRY(images.records(image::Kind::kMqueue, image_name(id)));
  pb::mqueue_entry entry;
  std::optional<pb::mqueue_attr> queue;
  uint32_t messages = 0, queues = 0;
  unsigned priority = 0;
  while (TRY(file.next(entry))) {
    if (entry.has_queue() == entry.has_message()) return fail(file.corrupt("neither a queue nor a message"));
    if (entry.has_queue()) {
      queue = entry.queue(), messages = 0;
      if (!is_name(queue->name()) || (queue->mode() & ~07777u) || queue->max_messages() == 0 ||
          queue->max_messages() > kMostMessages || queue->max_size() == 0 || queue->max_size() > kLargestMessage ||
          ++queues > kMostNames || (id && queues > 1))
        return fail(file.corrupt("a message queue"));
      TRY(begin(*queue));
      continue;
    }
    const auto& m = entry.message();
    if (!queue || ++messages > queue->max_messages() || m.text().size() > queue->max_size() ||
        m.priority() >= static_cast<uint32_t>(::sysconf(_SC_MQ_PRIO_MAX)) || (messages > 1 && m.priority() > priority))
      return fail(file.corrupt("a message"));
    priority = m.priority();
    TRY(message(m));
  }
  if (id && queues != 1) return fail(file.corrupt("no message queue"));
  return {};
}

Result<void> send_one(int fd, const pb::mqueue_message& m) {
  if (::mq_send(fd, m.text().data(), m.text().size(), m.priority()) < 0)
    return fail_sys("mq_send", "a POSIX message queue");
  return {};
}

}  // namespace

Result<Fd> mount_posix_queues() {
  const Fd context(::fsopen("mqueue", FSOPEN_CLOEXEC));
  if (!context && errno == ENODEV) return Fd();
  if (!context) return fail_sys("fsopen(mqueue)");
  if (::fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) < 0) return fail_sys("fsconfig(mqueue)");
  Fd mount(::fsmount(context.get(), FSMOUNT_CLOEXEC, 0));
  if (!mount) return fail_sys("fsmount(mqueue)");
  return mount;
}

Result<dev_t> posix_queues_device(int pidfd) {
  const auto inside = TRY(Inside::enter(pidfd, CLONE_NEWIPC));
  const Fd mount = TRY(mount_posix_queues());
  struct stat st {};
  if (mount && ::fstat(mount.get(), &st) < 0) return fail_sys("fstat", "file system of POSIX message queues");
  return st.st_dev;
}

Result<void> check_posix_queue(int fd, const std::string& name) {
  // "QSIZE:0          NOTIFY:0     SIGNO:0     NOTIFY_PID:0", ipc/mqueue.c mqueue_read_file()
  char text[256];
  const ssize_t n = ::pread(fd, text, sizeof text, 0);
  if (n < 0) return fail_sys("read", name);
  const auto pid = value_of(std::string_view(text, static_cast<size_t>(n)), "NOTIFY_PID:");
  if (pid.empty() || pid == "0") return {};
  return fail(Error(Code::kUnsupportedFile, cat(name, " is a POSIX message queue of which pid ", pid,
                                                " is to be told (mq_notify), which cannot be checkpointed"))
                  .about(name));
}

Result<void> dump_posix_queue(int fd, const std::string& name, const procfs::UserMaps* users, image::RecordFile& file) {
  TRY(check_posix_queue(fd, shown(name)));
  struct stat st {};
  mq_attr attributes{};
  if (::fstat(fd, &st) < 0) return fail_sys("fstat", shown(name));
  if (::mq_getattr(fd, &attributes) < 0) return fail_sys("mq_getattr", shown(name));
  const auto uid = users ? users->uid.inside(st.st_uid) : std::optional<uint32_t>(st.st_uid);
  const auto gid = users ? users->gid.inside(st.st_gid) : std::optional<uint32_t>(st.st_gid);
  if (!uid || !gid)
    return fail(
        Error(Code::kUnsupportedFile, cat(shown(name), " belongs to somebody outside the user namespace")).about(name));
  pb::mqueue_entry entry;
  auto& queue = *entry.mutable_queue();
  queue.set_name(name), queue.set_uid(*uid), queue.set_gid(*gid), queue.set_mode(st.st_mode & 07777);
  queue.set_max_messages(static_cast<uint32_t>(attributes.mq_maxmsg));
  queue.set_max_size(static_cast<uint32_t>(attributes.mq_msgsize));
  TRY(file.append(entry));
  for (auto& m : TRY(look_at_all(fd, attributes, name))) {
    entry.Clear();
    entry.mutable_message()->set_priority(m.priority);
    entry.mutable_message()->set_text(std::move(m.text));
    TRY(file.append(entry));
  }
  return {};
}

Result<bool> dump_posix_queues(int pidfd, image::Writer& images, const procfs::UserMaps* users) {
  const auto inside = TRY(Inside::enter(pidfd, CLONE_NEWIPC));
  const Fd mount = TRY(mount_posix_queues());
  const auto names = mount ? TRY(list_dir(mount.get(), ".")) : std::vector<std::string>();
  if (names.empty()) return false;
  auto file = TRY(images.open(image::Kind::kMqueue, image_name(0)));
  for (const auto& name : names) {
    const Fd fd = TRY(open_at(mount.get(), name, O_RDWR | O_NONBLOCK));
    TRY(dump_posix_queue(fd.get(), name, users, file));
  }
  TRY(file.close());
  return true;
}

Result<bool> check_posix_queue_images(const image::Reader& images, bool container) {
  std::set<uint32_t> ids;
  if (images.exists(image_name(0))) ids.insert(0);
  if (images.manifest())
    for (const auto& extra : images.manifest()->file_extras())
      if (extra.has_queue()) ids.insert(extra.queue());
  if (ids.empty()) return false;
  if (!container)
    return fail(Error(Code::kImageCorrupt, "POSIX message queues, and no ipc namespace").about("mqueue-0.img"));
  for (const uint32_t id : ids)
    TRY(read_image(
        images, id, [](const auto&) -> Result<void> { return {}; }, [](const auto&) -> Result<void> { return {}; }));
  return true;
}

Result<void> restore_posix_queues(const image::Reader& images) {
  if (!images.exists(image_name(0))) return {};
  const RaisedLimit raised;
  Fd fd;
  auto begin = [&](const pb::mqueue_attr& queue) -> Result<void> {
    fd = TRY(create(queue, queue.name()));
    return {};
  };
  return read_image(images, 0, begin, [&](const auto& m) { return send_one(fd.get(), m); });
}

Result<Fd> restore_posix_queue_without_name(const image::Reader& images, uint32_t id) {
  const RaisedLimit raised;
  Fd fd;
  auto begin = [&](const pb::mqueue_attr& queue) -> Result<void> {
    std::string name = queue.name();
    auto made = create(queue, name);
    // Somebody else's name by now: any other does, as long as it has one.
    for (int i = 0; i < 100 && !made && made.error().sys_errno() == EEXIST; ++i) {
      name = cat("stasis.", id, ".", i);
      made = create(queue, name);
    }
    fd = TRY(std::move(made));
    return {};
  };
  TRY(read_image(images, id, begin, [&](const auto& m) { return send_one(fd.get(), m); }));
  return fd;
}

}  // namespace stasis::namespaces
