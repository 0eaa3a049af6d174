// SPDX-License-Identifier: Apache-2.0
// Anonymous pipes, pipe(7): both ends, what is in flight, the buffer size. A pipe is known
// by its inode; either end may be outside, then --inherit-fd pipe:[INODE] brings it back.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>

#include "engine/base/io.h"
#include "engine/files/kind.h"

namespace stasis::files {
namespace {

bool matches(const Candidate& c) { return S_ISFIFO(c.st.st_mode) && c.link.starts_with("pipe:["); }

Result<void> check(const Candidate& c, const DumpEnv&) {
  TRY(check_owner(c));
  if (c.info.flags & O_DIRECT)
    return fail(Error(Code::kUnsupportedFile, cat(c.name(), " is a pipe in packet mode (O_DIRECT)")).about(c.name()));
  return {};
}

// Everything that is in the pipe, without taking it out: tee(2) into a pipe of our own.
Result<std::string> peek(const Candidate& c, int size) {
  std::string out;
  // Opening a pipe anew through /proc gives a reader whatever end we hold.
  Fd reader = TRY(open_at(AT_FDCWD, cat("/proc/self/fd/", c.copy.get()), O_RDONLY | O_NONBLOCK));
  int queued = 0;
  if (::ioctl(reader.get(), FIONREAD, &queued) < 0) return fail_sys("ioctl(FIONREAD)", c.name());
  if (queued == 0) return out;
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0) return fail_sys("pipe2");
  Fd in(ends[0]), to(ends[1]);
  if (::fcntl(to.get(), F_SETPIPE_SZ, size) < 0) return fail_sys("fcntl(F_SETPIPE_SZ)", c.name());
  // tee always starts at the first buffer: one call must take them all.
  const ssize_t n = ::tee(reader.get(), to.get(), static_cast<size_t>(queued), SPLICE_F_NONBLOCK);
  if (n != queued)
    return fail(Error(Code::kSystem, cat(c.name(), ": tee gave ", n, " of ", queued, " bytes")).about(c.name()));
  out.resize(static_cast<size_t>(queued));
  TRY(read_full(in.get(), out.data(), out.size(), "pipe"));
  return out;
}

Result<void> dump(const Candidate& c, const DumpEnv&, DumpOutput& out, pb::file_entry& entry) {
  auto& pipe = *entry.mutable_pipe();
  entry.set_type(pb::PIPE);
  pipe.set_id(entry.id());
  pipe.set_pipe_id(static_cast<uint32_t>(c.st.st_ino));
  pipe.set_flags(c.info.flags & ~uint32_t{O_CLOEXEC});
  set_no_owner(pipe.mutable_fown());
  if (out.pipes.contains(pipe.pipe_id())) return {};
  const int size = ::fcntl(c.copy.get(), F_GETPIPE_SZ);
  if (size < 0) return fail_sys("fcntl(F_GETPIPE_SZ)", c.name());
  auto& data = out.pipes[pipe.pipe_id()];
  data.bytes = TRY(peek(c, size));
  data.entry.set_pipe_id(pipe.pipe_id());
  data.entry.set_bytes(static_cast<uint32_t>(data.bytes.size()));
  data.entry.set_size(static_cast<uint32_t>(size));
  return {};
}

// Makes the pipe of `id` once, filled and sized.
Result<std::pair<Fd, Fd>*> pipe_of(uint32_t id, RestoreEnv& env) {
  auto [at, fresh] = env.open_pipes.try_emplace(id);
  if (!fresh) return &at->second;
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) < 0) return fail_sys("pipe2");
  at->second = {Fd(ends[0]), Fd(ends[1])};
  const auto data = env.pipes.find(id);
  if (data == env.pipes.end()) return &at->second;
  const int size = static_cast<int>(data->second.entry.size());
  if (size > 0 && ::fcntl(ends[1], F_GETPIPE_SZ) != size && ::fcntl(ends[1], F_SETPIPE_SZ, size) < 0)
    return fail_sys(Code::kRestoreFailed, "fcntl(F_SETPIPE_SZ)", cat(size, " bytes"));
  const auto& bytes = data->second.bytes;
  // More than fits would block for ever.
  if (::fcntl(ends[1], F_SETFL, O_NONBLOCK) < 0) return fail_sys("fcntl(F_SETFL)");
  if (!bytes.empty()) TRY(write_full(ends[1], bytes.data(), bytes.size(), cat("pipe:[", id, "]")));
  return &at->second;
}

Result<Fd> restore(const pb::file_entry& entry, RestoreEnv& env) {
  if (!entry.has_pipe()) return fail(Code::kImageCorrupt, cat("files.img: file ", entry.id(), " is no pipe"));
  const auto& pipe = entry.pipe();
  const std::string key = cat("pipe:[", pipe.pipe_id(), "]");
  int source = inherited_fd(env.options, key);
  struct stat st {};
  // What the caller gives instead of the pipe may be a file or a terminal, to be shared as it is.
  if (source >= 0 && (::fstat(source, &st) < 0 || !S_ISFIFO(st.st_mode))) return dup_at_least(source);
  const int access = static_cast<int>(pipe.flags()) & O_ACCMODE;
  if (source < 0) {
    auto* ends = TRY(pipe_of(pipe.pipe_id(), env));
    source = access == O_RDONLY ? ends->first.get() : ends->second.get();
  }
  // The first description of each end is the one that pipe(2) made. More of them were opened
  // through /proc, with flags of their own, as was any O_RDWR one.
  const bool first = access != O_RDWR && env.pipe_ends_used.insert({pipe.pipe_id(), access}).second;
  Fd fd =
      first ? TRY(dup_at_least(source)) : TRY(open_at(AT_FDCWD, cat("/proc/self/fd/", source), access | O_NONBLOCK));
  if (::fcntl(fd.get(), F_SETFL, static_cast<int>(pipe.flags() & kSettableFlags)) < 0)
    return fail_sys("fcntl(F_SETFL)", key);
  return fd;
}

}  // namespace

const FileKind kPipe = {"pipe", pb::PIPE, matches, check, dump, restore};

}  // namespace stasis::files
