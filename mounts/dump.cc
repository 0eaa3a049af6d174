// SPDX-License-Identifier: Apache-2.0
#include "mounts/dump.h"

#include <sys/mount.h>

#include <algorithm>

#include "mounts/classify.h"

namespace stasis::mounts {
namespace {

using How = Treatment::How;

uint32_t image_flags(const Mount& m) {
  uint32_t flags = mount_flags(m.options);
  if (m.shared_id) flags |= MS_SHARED;
  if (m.master_id) flags |= MS_SLAVE;
  if (m.unbindable) flags |= MS_UNBINDABLE;
  return flags;
}

// mountinfo shows uid= and gid= (tmpfs, devpts, proc) as the reader has them; they are given inside the container.
Result<std::string> inside_options(const std::string& data, const procfs::UserMaps* users) {
  if (!users) return data;
  std::vector<std::string> words;
  for (auto word : split(data, ',')) {
    words.emplace_back(word);
    const bool uid = word.starts_with("uid=");
    if (!uid && !word.starts_with("gid=")) continue;
    const auto outer = parse_int<uint32_t>(word.substr(4));
    const auto inner = outer ? (uid ? users->uid : users->gid).inside(*outer) : std::nullopt;
    if (!inner) return fail(Code::kUnsupportedMount, cat("the option ", word, " is not in its user namespace"));
    words.back() = cat(word.substr(0, 4), *inner);
  }
  return join(words, ",");
}

uint32_t with_user(uint32_t own, const procfs::UserMaps* users) {
  return users ? own | CLONE_NEWUSER : own & ~static_cast<uint32_t>(CLONE_NEWUSER);
}

bool is_outside(const Treatment& t) { return t.how == How::kExternal || t.how == How::kAuto || t.how == How::kRoot; }

// Every obstacle that a user namespace adds.
void check_users(const Table& table, const std::vector<Treatment>& all, const procfs::UserMaps* users,
                 std::vector<Error>& errors) {
  for (size_t i = 0; i < table.mounts.size(); ++i) {
    if (all[i].how == How::kSkip || is_outside(all[i])) continue;
    if (auto data = inside_options(super_options(table.mounts[i].super_options).data, users); !data)
      errors.push_back(std::move(data).error().about(describe(table.mounts[i])));
  }
}

pb::mnt_entry entry_of(const Mount& m, const Treatment& t, const procfs::UserMaps* users) {
  pb::mnt_entry e;
  SuperOptions super = super_options(m.super_options);
  if (auto data = inside_options(super.data, users)) super.data = *std::move(data);  // check_users() saw to the rest
  e.set_fstype(t.type ? t.type->code : kFsUnsupported);
  if (t.type && t.type->code == kFsAuto) e.set_fsname(m.fstype);
  e.set_mnt_id(m.mnt_id);
  e.set_root_dev(m.s_dev);
  e.set_parent_mnt_id(m.parent_id);
  e.set_flags(image_flags(m));
  e.set_sb_flags(super.flags);
  e.set_root(t.root);
  e.set_mountpoint(m.mountpoint);
  e.set_source(t.how == How::kAuto ? t.host_path : m.source);
  // CRIU wants to be told that this is not the devpts that every kernel before 4.7 shared.
  e.set_options(m.fstype == "devpts" ? join({"newinstance", super.data}, super.data.empty() ? "" : ",") : super.data);
  if (m.shared_id) e.set_shared_id(m.shared_id);
  if (m.master_id) e.set_master_id(m.master_id);
  if (t.how == How::kExternal) e.set_ext_key(t.key);
  if (t.how == How::kAuto) e.set_ext_key(std::string(kAutoKey));
  bool outside = t.how == How::kExternal || t.how == How::kAuto;
  if (outside && m.shared_id && !t.host_peer) e.set_internal_sharing(true);
  return e;
}

}  // namespace

std::vector<Error> check(const Table& table, const Options& options, const Table& engine, uint32_t own_namespaces,
                         const procfs::UserMaps* users) {
  std::vector<Error> errors;
  const auto all = Classifier(table, options, engine, with_user(own_namespaces, users)).run(&errors);
  check_users(table, all, users, errors);
  return errors;
}

Result<std::vector<pb::mnt_entry>> dump(const Table& table, const Options& options, const Table& engine,
                                        uint32_t own_namespaces, const procfs::UserMaps* users) {
  std::vector<Error> errors;
  auto all = Classifier(table, options, engine, with_user(own_namespaces, users)).run(&errors);
  check_users(table, all, users, errors);
  if (!errors.empty()) {
    Error first = std::move(errors.front());
    first.also().assign(std::make_move_iterator(errors.begin() + 1), std::make_move_iterator(errors.end()));
    return fail(std::move(first));
  }
  std::vector<pb::mnt_entry> entries;
  for (size_t i = 0; i < all.size(); ++i)
    if (all[i].how != How::kSkip) entries.push_back(entry_of(table.mounts[i], all[i], users));
  return entries;
}

std::string content_image_name(uint32_t s_dev) { return cat("tmpfs-dev-", s_dev, ".tar.gz.img"); }

std::vector<ContentJob> content_jobs(const Table& table, const std::vector<pb::mnt_entry>& entries) {
  const Mount& root = table.mounts[table.root];
  std::vector<ContentJob> jobs;
  for (const auto& e : entries) {
    const Mount* m = table.find(static_cast<int>(e.mnt_id()));
    if (!m || e.has_ext_key() || m == &root || m->s_dev == root.s_dev) continue;
    const FsType* type = find_fstype(m->fstype);
    if (!type) type = find_auto_fstype(m->fstype, {"all"});
    if (!type || (type->cls != FsClass::kContent && type->cls != FsClass::kEmpty)) continue;
    if (e.root() != "/") {
      bool whole =
          std::ranges::any_of(entries, [&](const auto& o) { return o.root_dev() == m->s_dev && o.root() == "/"; });
      if (whole) continue;
    }
    bool archive = type->cls == FsClass::kContent;
    auto job = std::ranges::find(jobs, m->s_dev, &ContentJob::s_dev);
    if (job == jobs.end()) {
      jobs.push_back({archive ? ContentJob::Kind::kArchive : ContentJob::Kind::kMustBeEmpty, m->s_dev, m->mnt_id,
                      m->mountpoint, archive ? content_image_name(m->s_dev) : std::string()});
    } else if (!table.reachable(*table.find(job->mnt_id)) && table.reachable(*m)) {
      job->mnt_id = m->mnt_id;
      job->mountpoint = m->mountpoint;
    }
  }
  return jobs;
}

}  // namespace stasis::mounts
