// SPDX-License-Identifier: Apache-2.0
// Who is told of I/O by a signal, fcntl(2): F_SETOWN_EX, F_SETSIG, O_ASYNC. One way for all kinds of files whose
// image entry has a fown_entry.
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "engine/files/kind.h"

#ifndef F_GETOWNER_UIDS
#define F_GETOWNER_UIDS 17
#endif

namespace stasis::files {
namespace {

using google::protobuf::FieldDescriptor;

struct OwnerState {
  f_owner_ex owner{};
  int signal = 0;
};

Result<OwnerState> owner_state(const Candidate& c) {
  OwnerState state;
  if (::fcntl(c.copy.get(), F_GETOWN_EX, &state.owner) < 0) return fail_sys("fcntl(F_GETOWN_EX)", c.name());
  state.signal = ::fcntl(c.copy.get(), F_GETSIG);
  if (state.signal < 0) return fail_sys("fcntl(F_GETSIG)", c.name());
  return state;
}

// The owner's number in the container.
std::optional<pid_t> in_container(const f_owner_ex& owner, const DumpEnv& env) {
  if (owner.type == F_OWNER_PGRP) {
    for (const auto& [pid, npid] : env.pids) {
      const auto stat = env.proc.stat(pid);
      const auto status = env.proc.status(pid);
      if (!stat || !status || stat->pgrp != owner.pid) continue;
      const pid_t group = status->ns_pgid.back();
      return group > 0 ? std::optional(group) : std::nullopt;
    }
    return std::nullopt;
  }
  const auto status = env.proc.status(owner.pid);  // of any thread
  if (!status || !env.pids.contains(status->tgid)) return std::nullopt;
  return status->ns_pid.back();
}

// The member of the entry that belongs to its type, if it can have an owner.
const FieldDescriptor* owned_field(const pb::file_entry& entry) {
  std::vector<const FieldDescriptor*> fields;
  entry.GetReflection()->ListFields(entry, &fields);
  for (const auto* field : fields)
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE && field->message_type()->FindFieldByName("fown"))
      return field;
  return nullptr;
}

struct Owned {
  const pb::fown_entry* fown = nullptr;
  uint32_t flags = 0;
};

// No owner: it cannot have one.
Owned owned(const pb::file_entry& entry) {
  const auto* field = owned_field(entry);
  if (!field) return {};
  const auto& part = entry.GetReflection()->GetMessage(entry, field);
  const auto* fown = field->message_type()->FindFieldByName("fown");
  const auto* flags = field->message_type()->FindFieldByName("flags");
  Owned out;
  out.fown = static_cast<const pb::fown_entry*>(&part.GetReflection()->GetMessage(part, fown));
  if (flags && flags->cpp_type() == FieldDescriptor::CPPTYPE_UINT32)
    out.flags = part.GetReflection()->GetUInt32(part, flags);
  return out;
}

bool signals(const pb::fown_entry& fown, uint32_t flags) {
  return fown.pid() != 0 || fown.signum() != 0 || (flags & O_ASYNC);
}

// A task that has the file, and its descriptor: F_SETSIG tells receivers the number that O_ASYNC was set with.
std::pair<uint32_t, int> holder_of(uint32_t id, const pb::fown_entry& fown, const RestoreEnv& env) {
  std::pair<uint32_t, int> found{env.tables.front().pid, env.numbers.at(id)};
  bool any = false;
  for (const auto& table : env.tables) {
    const auto at = std::ranges::find_if(*table.fds, [&](const auto& e) { return e.id() == id; });
    if (at == table.fds->end() || (any && table.pid != fown.pid())) continue;
    found = {table.pid, static_cast<int>(at->fd())};
    any = true;
  }
  return found;
}

// `as_client`: user ids cannot be changed.
void add_calls(const pb::fown_entry& fown, uint32_t flags, int fd, bool as_client, remote::Batch& batch) {
  if (fown.pid() != 0) {
    // The kernel remembers who said so: these may signal whom they could have signalled then.
    const bool other = !as_client && (fown.uid() != 0 || fown.euid() != 0);
    const f_owner_ex owner{static_cast<decltype(f_owner_ex::type)>(fown.pid_type()), static_cast<pid_t>(fown.pid())};
    if (other) batch.add(__NR_setresuid, fown.uid(), fown.euid(), 0), batch.must("setresuid");
    batch.add(__NR_fcntl, fd, F_SETOWN_EX, batch.put(owner));
    batch.must(cat("fcntl(F_SETOWN_EX) to ", fown.pid()));
    if (other) batch.add(__NR_setresuid, 0, 0, 0), batch.must("setresuid");
    if (other) batch.add(__NR_prctl, PR_SET_DUMPABLE, 1);  // which the change of ids has taken away
  }
  if (fown.signum()) batch.add(__NR_fcntl, fd, F_SETSIG, fown.signum()), batch.must("fcntl(F_SETSIG)");
  if (flags & O_ASYNC)
    batch.add(__NR_fcntl, fd, F_SETFL, (flags & kSettableFlags) | O_ASYNC), batch.must("fcntl(F_SETFL) with O_ASYNC");
}

}  // namespace

Result<void> check_signals(const Candidate& c, const DumpEnv& env) {
  if (c.fd < 0 || (c.info.flags & O_PATH)) return {};
  const auto state = TRY(owner_state(c));
  if (state.owner.pid != 0 && !in_container(state.owner, env))
    return unsupported(c,
                       cat("sends signals on I/O (F_SETOWN) to ", state.owner.pid, ", which is outside the container"));
  return {};
}

Result<void> dump_signals(const Candidate& c, const DumpEnv& env, pb::file_entry& entry) {
  if (c.fd < 0 || (c.info.flags & O_PATH)) return {};
  const auto state = TRY(owner_state(c));
  if (state.owner.pid == 0 && state.signal == 0 && !(c.info.flags & O_ASYNC)) return {};
  const auto* field = owned_field(entry);
  if (!field) return unsupported(c, "sends signals on I/O (F_SETOWN), which cannot be kept for a file of this kind");
  auto* part = entry.GetReflection()->MutableMessage(&entry, field);
  auto* fown = static_cast<pb::fown_entry*>(
      part->GetReflection()->MutableMessage(part, field->message_type()->FindFieldByName("fown")));
  fown->set_signum(static_cast<uint32_t>(state.signal));
  if (state.owner.pid == 0) return {};
  const auto pid = in_container(state.owner, env);
  if (!pid) return check_signals(c, env);
  fown->set_pid_type(static_cast<uint32_t>(state.owner.type));
  fown->set_pid(static_cast<uint32_t>(*pid));
  uid_t ids[2] = {};
  if (::fcntl(c.copy.get(), F_GETOWNER_UIDS, ids) < 0) return fail_sys("fcntl(F_GETOWNER_UIDS)", c.name());
  const auto inside = [&](uid_t id) { return env.users ? env.users->uid.inside(id) : id; };
  const auto uid = inside(ids[0]), euid = inside(ids[1]);
  if (!uid || !euid) return unsupported(c, "was given its owner (F_SETOWN) by a user whom the container does not have");
  fown->set_uid(*uid), fown->set_euid(*euid);
  return {};
}

Result<void> check_signals_image(const pb::file_entry& file, const KnownIds& known) {
  const auto* fown = owned(file).fown;
  if (!fown || (fown->pid() == 0 && fown->signum() == 0)) return {};
  const std::set<uint32_t>* of[] = {&known.threads, &known.processes, &known.groups};
  if (fown->signum() > 64 || fown->pid_type() > F_OWNER_PGRP ||
      (fown->pid() && !of[fown->pid_type()]->contains(fown->pid())))
    return corrupt_file(file.id(),
                        cat("sends signal ", fown->signum(), " to ", fown->pid(), ", whom the images do not have"));
  return {};
}

void restore_signals(uint32_t pid, const RestoreEnv& env, remote::Batch& batch) {
  for (const auto& [id, file] : env.files) {
    const auto [fown, flags] = owned(file);
    if (!fown || (flags & O_PATH) || !signals(*fown, flags)) continue;
    if (const auto [holder, fd] = holder_of(id, *fown, env); holder == pid)
      add_calls(*fown, flags, fd, env.options.client.has_value(), batch);
  }
}

}  // namespace stasis::files
