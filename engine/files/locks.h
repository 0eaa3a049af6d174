// SPDX-License-Identifier: Apache-2.0
// File locks and leases.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"
#include "engine/image/reader.h"
#include "engine/remote/batch.h"
#include "proto/files.pb.h"

namespace stasis::files {

struct Candidate;
struct DumpEnv;
struct RestoreEnv;

// file_lock_entry.flag, as in include/linux/fs.h.
constexpr uint32_t kPosixLock = 1, kFlock = 2, kLease = 32, kDescriptionLock = 1024;

struct Lock {
  pb::file_lock_entry entry;
  uint32_t file = 0;  // id in files.img
};

// A "lock:" line of fdinfo.
struct LockLine {
  pb::file_lock_entry entry;  // flag 0: of another kind; pid: in the pid namespace of /proc; fd is not set
  std::string kind, state;    // words of the kernel's
};
std::optional<LockLine> parse_lock(std::string_view line);

// Which of them cannot be carried over.
Result<void> check_locks(const Candidate& candidate);
// Adds those that are not yet known.
Result<void> note_locks(const Candidate& candidate, const DumpEnv& env, uint32_t file_id, std::vector<Lock>& locks);
void add_locks_image(const std::vector<Lock>& locks, std::vector<pb::file_lock_entry>& out);

// All of the images, checked; their files are found by find_lock_files() for every task, then check_lock_files().
Result<std::vector<Lock>> load_locks(const image::Reader& images);
Result<void> find_lock_files(std::vector<Lock>& locks, uint32_t pid, const std::vector<pb::fdinfo_entry>& fds);
Result<void> check_lock_files(const std::vector<Lock>& locks);
// In the root stub, when all files are open.
Result<void> take_locks(const RestoreEnv& env);
// The last calls of the task that have to do with files: closes the numbers of the pool if need be.
void take_own_locks(uint32_t pid, const RestoreEnv& env, remote::Batch& batch);

}  // namespace stasis::files
