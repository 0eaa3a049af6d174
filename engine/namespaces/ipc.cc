// SPDX-License-Identifier: Apache-2.0
// ipc_namespaces(7): the limits of System V IPC and POSIX message queues -> ipcns-var-ID.img.
// The objects themselves: sysv_shm.cc, sysv_queues.cc.
#include "engine/base/io.h"
#include "engine/namespaces/namespaces.h"
#include "proto/namespaces.pb.h"

namespace stasis::namespaces {
namespace {

using Var = pb::ipc_var_entry;

// /proc/sys shows and sets the values of the reader's ipc namespace.
template <class Int>
Result<Int> read_number(const std::string& file) {
  const std::string text = TRY(read_file_at(AT_FDCWD, "/proc/sys/" + file));
  const auto value = parse_int<Int>(trim(text));
  if (!value) return fail(Code::kInternal, cat("/proc/sys/", file, " is not a number: ", trim(text)));
  return *value;
}

struct Number32 {
  const char* file;
  uint32_t (Var::*get)() const;
  void (Var::*set)(uint32_t);
  bool optional;  // newer kernels may refuse or lack it
};
const Number32 kNumbers[] = {
    {"kernel/msgmax", &Var::msg_ctlmax, &Var::set_msg_ctlmax, false},
    {"kernel/msgmnb", &Var::msg_ctlmnb, &Var::set_msg_ctlmnb, false},
    {"kernel/msgmni", &Var::msg_ctlmni, &Var::set_msg_ctlmni, false},
    {"kernel/auto_msgmni", &Var::auto_msgmni, &Var::set_auto_msgmni, true},
    {"kernel/shmmni", &Var::shm_ctlmni, &Var::set_shm_ctlmni, false},
    {"kernel/shm_rmid_forced", &Var::shm_rmid_forced, &Var::set_shm_rmid_forced, false},
    {"fs/mqueue/queues_max", &Var::mq_queues_max, &Var::set_mq_queues_max, true},
    {"fs/mqueue/msg_max", &Var::mq_msg_max, &Var::set_mq_msg_max, true},
    {"fs/mqueue/msgsize_max", &Var::mq_msgsize_max, &Var::set_mq_msgsize_max, true},
    {"fs/mqueue/msg_default", &Var::mq_msg_default, &Var::set_mq_msg_default, true},
    {"fs/mqueue/msgsize_default", &Var::mq_msgsize_default, &Var::set_mq_msgsize_default, true},
};

// Writes only what differs: a container restored without CAP_SYS_RESOURCE keeps the defaults anyway.
Result<void> set_text(const std::string& file, const std::string& value, bool optional) {
  const auto now = read_file_at(AT_FDCWD, "/proc/sys/" + file);
  if (now && fields(trim(*now)) == fields(value)) return {};
  auto written = write_file_at(AT_FDCWD, "/proc/sys/" + file, value);
  if (written || !optional) return written;
  log::warning("/proc/sys/", file, " cannot be set to ", value, ": ", written.error().message(), ", ignoring");
  return {};
}

}  // namespace

Result<void> dump_ipc(uint32_t id, image::Writer& images, memory::SharedObjects& shared,
                      const procfs::UserMaps* users) {
  Var var;
  for (const auto& n : kNumbers) {
    auto value = read_number<uint32_t>(n.file);
    if (value)
      (var.*n.set)(*value);
    else if (n.optional)
      (var.*n.set)(0);
    else
      return fail(std::move(value).error());
  }
  const std::string sem = TRY(read_file_at(AT_FDCWD, "/proc/sys/kernel/sem"));
  for (auto field : fields(trim(sem))) var.add_sem_ctls(parse_int<uint32_t>(field).value_or(0));
  var.set_shm_ctlmax(TRY(read_number<uint64_t>("kernel/shmmax")));
  var.set_shm_ctlall(TRY(read_number<uint64_t>("kernel/shmall")));
  TRY(dump_shm(id, images, shared, users));
  TRY(dump_queues(id, images, users));
  return images.put(image::Kind::kIpcVar, cat("ipcns-var-", id, ".img"), var);
}

Result<void> restore_ipc(uint32_t id, const image::Reader& images) {
  const auto var = TRY(images.read<Var>(image::Kind::kIpcVar, cat("ipcns-var-", id, ".img")));
  std::string sem;
  for (uint32_t v : var.sem_ctls()) sem += cat(sem.empty() ? "" : " ", v);
  TRY(set_text("kernel/sem", sem, false));
  for (const auto& n : kNumbers)
    if ((var.*n.get)() != 0 || !n.optional) TRY(set_text(n.file, cat((var.*n.get)()), n.optional));
  return {};
}

Result<void> restore_ipc_objects(uint32_t id, const image::Reader& images) {
  const auto var = TRY(images.read<Var>(image::Kind::kIpcVar, cat("ipcns-var-", id, ".img")));
  TRY(restore_shm(id, images));
  TRY(restore_queues(id, images));
  // Limits that a new namespace has at their highest, and what is there already need not keep.
  TRY(set_text("kernel/shmmax", cat(var.shm_ctlmax()), false));
  return set_text("kernel/shmall", cat(var.shm_ctlall()), false);
}

}  // namespace stasis::namespaces
