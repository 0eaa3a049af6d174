// SPDX-License-Identifier: Apache-2.0
// System V semaphore sets, semget(2) -> ipcns-sem-ID.img, and message queues, msgget(2) -> ipcns-msg-ID.img. What a
// task would undo at its end (SEM_UNDO) can be read by nobody: preflight looks for it. Who was the last to act, and
// when, is not kept.
#include <sys/msg.h>
#include <sys/sem.h>

#include <cerrno>
#include <cstring>

#include "engine/namespaces/namespaces.h"
#include "engine/namespaces/sysv.h"

#ifndef MSG_COPY
#define MSG_COPY 040000  // CONFIG_CHECKPOINT_RESTORE, include/uapi/linux/msg.h
#endif

namespace stasis::namespaces {
namespace {

constexpr uint32_t kMaxSemaphores = 65536;   // of a set: ipc/sem.c SEMMSL at most
constexpr uint32_t kMaxMessage = 16u << 20;  // bytes; far above any msgmax in use
constexpr uint32_t kMaxMessages = 1u << 20;  // of a queue

union SemArgument {
  int value;
  struct semid_ds* ds;
  unsigned short* array;
};

std::string image_name(const char* kind, uint32_t id) { return cat("ipcns-", kind, "-", id, ".img"); }
size_t padding(size_t size) { return (8 - size % 8) % 8; }

Result<void> append(image::RecordFile& file, const void* data, size_t size) {
  static constexpr char kZero[8] = {};
  TRY(file.append_payload(data, size));
  return file.append_payload(kZero, padding(size));
}

Result<void> dump_set(uint32_t id, image::RecordFile& file, const procfs::UserMaps* users) {
  struct semid_ds ds {};
  if (::semctl(static_cast<int>(id), 0, IPC_STAT, SemArgument{.ds = &ds}) < 0)
    return fail_sys("semctl(IPC_STAT)", sysv_name("sem", id));
  std::vector<unsigned short> values(ds.sem_nsems);
  if (::semctl(static_cast<int>(id), 0, GETALL, SemArgument{.array = values.data()}) < 0)
    return fail_sys("semctl(GETALL)", sysv_name("sem", id));
  pb::ipc_sem_entry entry;
  TRY(describe_sysv(ds.sem_perm, "sem", id, users, *entry.mutable_desc()));
  entry.set_nsems(static_cast<uint32_t>(values.size()));
  TRY(file.append(entry));
  return append(file, values.data(), values.size() * sizeof(values[0]));
}

Result<void> restore_set(const pb::ipc_sem_entry& entry, image::RecordReader& file) {
  const auto& desc = entry.desc();
  if (entry.nsems() == 0 || entry.nsems() > kMaxSemaphores || desc.id() > kMaxSysvId)
    return fail(file.corrupt("a semaphore set"));
  std::vector<unsigned short> values(entry.nsems());
  const std::string bytes = TRY(file.payload(values.size() * sizeof(values[0])));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  TRY(file.skip(padding(bytes.size())));
  const int id = TRY(create_sysv("sem", desc, false, [&](int flags) {
    return ::semget(static_cast<key_t>(desc.key()), static_cast<int>(entry.nsems()), flags);
  }));
  struct semid_ds ds {};
  ds.sem_perm.uid = desc.uid(), ds.sem_perm.gid = desc.gid();
  ds.sem_perm.mode = static_cast<unsigned short>(desc.mode() & kSysvPermissions);
  if (::semctl(id, 0, SETALL, SemArgument{.array = values.data()}) < 0 ||
      ::semctl(id, 0, IPC_SET, SemArgument{.ds = &ds}) < 0)
    return fail_sys("semctl", sysv_name("sem", desc.id()));
  return {};
}

struct Message {
  long type;
  char text[];
};

Result<void> dump_queue(uint32_t id, image::RecordFile& file, const procfs::UserMaps* users) {
  const std::string name = sysv_name("msg", id);
  struct msqid_ds ds {};
  if (::msgctl(static_cast<int>(id), IPC_STAT, &ds) < 0) return fail_sys("msgctl(IPC_STAT)", name);
  pb::ipc_msg_entry entry;
  TRY(describe_sysv(ds.msg_perm, "msg", id, users, *entry.mutable_desc()));
  entry.set_qbytes(static_cast<uint32_t>(ds.msg_qbytes));
  entry.set_qnum(static_cast<uint32_t>(ds.msg_qnum));
  TRY(file.append(entry));
  // No message is longer than all of them; aligned for the type in front.
  std::vector<long> buffer(1 + (ds.__msg_cbytes + sizeof(long) - 1) / sizeof(long));
  auto* message = reinterpret_cast<Message*>(buffer.data());
  for (uint32_t i = 0; i < entry.qnum(); ++i) {
    const ssize_t size =
        ::msgrcv(static_cast<int>(id), message, ds.__msg_cbytes, static_cast<long>(i), IPC_NOWAIT | MSG_COPY);
    if (size < 0) return fail_sys("msgrcv(MSG_COPY)", name);
    pb::ipc_msg record;
    record.set_mtype(static_cast<uint64_t>(message->type)), record.set_msize(static_cast<uint32_t>(size));
    TRY(file.append(record));
    TRY(append(file, message->text, static_cast<size_t>(size)));
  }
  return {};
}

Result<void> send_messages(int id, const pb::ipc_msg_entry& entry, image::RecordReader& file) {
  pb::ipc_msg record;
  for (uint32_t i = 0; i < entry.qnum(); ++i) {
    if (!TRY(file.next(record))) return fail(file.corrupt("a message is missing"));
    if (record.msize() > kMaxMessage || record.mtype() == 0 || record.mtype() >> 63)
      return fail(file.corrupt("a message"));
    const std::string text = TRY(file.payload(record.msize()));
    TRY(file.skip(padding(text.size())));
    std::vector<long> buffer(1 + (text.size() + sizeof(long) - 1) / sizeof(long));
    auto* message = reinterpret_cast<Message*>(buffer.data());
    message->type = static_cast<long>(record.mtype());
    std::memcpy(message->text, text.data(), text.size());
    if (::msgsnd(id, message, text.size(), IPC_NOWAIT) < 0)
      return fail_sys("msgsnd", sysv_name("msg", entry.desc().id()));
  }
  return {};
}

Result<void> restore_queue(const pb::ipc_msg_entry& entry, image::RecordReader& file) {
  const auto& desc = entry.desc();
  if (desc.id() > kMaxSysvId || entry.qnum() > kMaxMessages) return fail(file.corrupt("a message queue"));
  const int id =
      TRY(create_sysv("msg", desc, false, [&](int flags) { return ::msgget(static_cast<key_t>(desc.key()), flags); }));
  struct msqid_ds ds {};
  ds.msg_perm.uid = desc.uid(), ds.msg_perm.gid = desc.gid();
  ds.msg_perm.mode = static_cast<unsigned short>(desc.mode() & kSysvPermissions);
  ds.msg_qbytes = entry.qbytes();
  if (::msgctl(id, IPC_SET, &ds) < 0) return fail_sys("msgctl(IPC_SET)", sysv_name("msg", desc.id()));
  return send_messages(id, entry, file);
}

template <class Entry, class One>
Result<void> restore_all(image::Kind kind, const std::string& name, const image::Reader& images, One one) {
  if (!images.exists(name)) return {};
  auto file = TRY(images.records(kind, name));
  Entry entry;
  while (TRY(file.next(entry))) TRY(one(entry, file));
  return {};
}

}  // namespace

Result<void> dump_queues(uint32_t id, image::Writer& images, const procfs::UserMaps* users) {
  for (const auto& [name, kind, one] :
       {std::tuple{"sem", image::Kind::kIpcSem, &dump_set}, std::tuple{"msg", image::Kind::kIpcMsg, &dump_queue}}) {
    const auto ids = TRY(list_sysv(name));
    if (ids.empty()) continue;
    auto file = TRY(images.open(kind, image_name(name, id)));
    for (uint32_t each : ids) TRY(one(each, file, users));
    TRY(file.close());
  }
  return {};
}

Result<void> restore_queues(uint32_t id, const image::Reader& images) {
  TRY(restore_all<pb::ipc_sem_entry>(image::Kind::kIpcSem, image_name("sem", id), images, restore_set));
  return restore_all<pb::ipc_msg_entry>(image::Kind::kIpcMsg, image_name("msg", id), images, restore_queue);
}

}  // namespace stasis::namespaces
