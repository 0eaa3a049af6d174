// SPDX-License-Identifier: Apache-2.0
// Anonymous pipes, pipe(7): both ends, what is in flight (as packets, if it is), the buffer size. A pipe is known
// by its inode; either end may be outside, then --inherit-fd pipe:[INODE] brings it back.
#include "engine/files/pipe.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "engine/base/io.h"
#include "engine/files/kind.h"

namespace stasis::files {
namespace {

bool matches(const Candidate& c) { return S_ISFIFO(c.st.st_mode) && c.link.starts_with("pipe:["); }

Result<void> check(const Candidate& c, const DumpEnv&) { return check_owner(c); }

constexpr uint64_t kMaxBytes = uint64_t{1} << 24;
constexpr int64_t kMaxPacket = 4096;  // pipe(2): longer ones are split

struct Copy {
  Fd reader, writer;
};

// A pipe of our own with the same contents.
Result<Copy> copy_of(int fd, int queued, int size, const std::string& name) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0) return fail_sys("pipe2");
  Copy copy{Fd(ends[0]), Fd(ends[1])};
  if (::fcntl(ends[1], F_SETPIPE_SZ, size) < 0) return fail_sys("fcntl(F_SETPIPE_SZ)", name);
  // tee always starts at the first buffer: one call must take them all.
  const ssize_t n = ::tee(fd, ends[1], static_cast<size_t>(queued), SPLICE_F_NONBLOCK);
  if (n != queued) return fail(Error(Code::kSystem, cat(name, ": tee gave ", n, " of ", queued, " bytes")).about(name));
  return copy;
}

Result<int> left_in(int fd) {
  int queued = 0;
  if (::ioctl(fd, FIONREAD, &queued) < 0) return fail_sys("ioctl(FIONREAD)", "pipe");
  return queued;
}

// How long packets and what is between them are. A read ends with a packet: `reads` are what it gave each time; the
// last may have ended because there was no more. One byte read takes all of its packet along, pipe(2) O_DIRECT.
Result<std::vector<int64_t>> find_packets(const Copy& copy, const std::vector<int64_t>& reads, bool direct) {
  std::vector<int64_t> pieces;
  int left = TRY(left_in(copy.reader.get()));
  for (size_t i = 0; i < reads.size(); ++i) {
    for (int64_t rest = reads[i]; rest > 0;) {
      char byte;
      if (::read(copy.reader.get(), &byte, 1) != 1) return fail_sys("read", "pipe");
      const int64_t taken = left - TRY(left_in(copy.reader.get()));
      left -= static_cast<int>(taken), rest -= taken;
      if (taken > kMaxPacket || rest < 0)
        return fail(Code::kUnsupportedFile, cat("a packet of ", taken, " bytes in a pipe"));
      const bool packet = taken > 1 || (rest == 0 && (direct || i + 1 < reads.size()));
      if (!packet && !pieces.empty() && pieces.back() < 0)
        --pieces.back();
      else
        pieces.push_back(packet ? taken : -1);
    }
  }
  return pieces;
}

}  // namespace

Result<DumpOutput::PipeData> peek_pipe(const Candidate& c, uint32_t id, bool named, image::Writer& images) {
  DumpOutput::PipeData out;
  const int size = ::fcntl(c.copy.get(), F_GETPIPE_SZ);
  if (size < 0) return fail_sys("fcntl(F_GETPIPE_SZ)", c.name());
  const int queued = TRY(left_in(c.copy.get()));
  out.entry.set_pipe_id(id);
  out.entry.set_bytes(static_cast<uint32_t>(queued));
  out.entry.set_size(static_cast<uint32_t>(size));
  if (queued == 0) return out;
  Fd opened;
  int reader = c.copy.get();
  if ((c.info.flags & O_ACCMODE) == O_WRONLY) {
    // Opening a pipe anew through /proc gives a reader whatever end we hold.
    opened = TRY(open_at(AT_FDCWD, cat("/proc/self/fd/", reader), O_RDONLY | O_NONBLOCK));
    reader = opened.get();
  }
  const auto contents = TRY(copy_of(reader, queued, size, c.name()));
  out.bytes.resize(static_cast<size_t>(queued));
  std::vector<int64_t> reads;
  for (size_t at = 0; at < out.bytes.size(); at += static_cast<size_t>(reads.back())) {
    const ssize_t n = ::read(contents.reader.get(), out.bytes.data() + at, out.bytes.size() - at);
    if (n <= 0) return fail_sys("read", c.name());
    reads.push_back(n);
  }
  const bool direct = (c.info.flags & O_DIRECT) != 0;
  if (reads.size() == 1 && !direct) return out;
  pb::pipe_extra extra;
  extra.set_pipe_id(id), extra.set_named(named);
  const auto again = TRY(copy_of(reader, queued, size, c.name()));
  for (const int64_t piece : TRY(find_packets(again, reads, direct))) extra.add_pieces(piece);
  images.add_pipe_extra(extra);
  return out;
}

Result<std::map<uint32_t, DumpOutput::PipeData>> load_pipes(const image::Reader& images, bool named) {
  const std::string name = named ? "fifo-data.img" : "pipes-data.img";
  std::map<uint32_t, DumpOutput::PipeData> out;
  auto corrupt = [&](std::string what) { return fail(Error(Code::kImageCorrupt, cat(name, ": ", what)).about(name)); };
  if (!images.exists(name)) return out;
  auto reader = TRY(images.records(named ? image::Kind::kFifoData : image::Kind::kPipesData, name));
  pb::pipe_data_entry entry;
  while (TRY(reader.next(entry))) {
    auto& pipe = out[entry.pipe_id()];
    if (entry.bytes() > kMaxBytes) return corrupt("too much data");
    if (entry.size() > (1u << 30)) return corrupt("size of a pipe");
    pipe.entry = entry;
    pipe.bytes = TRY(reader.payload(entry.bytes()));
  }
  if (!images.manifest()) return out;
  for (const auto& extra : images.manifest()->pipe_extras()) {
    if (extra.named() != named) continue;
    const auto pipe = out.find(extra.pipe_id());
    if (pipe == out.end()) return corrupt(cat("no pipe ", extra.pipe_id()));
    uint64_t total = 0;
    for (const int64_t piece : extra.pieces()) {
      if (piece == 0 || piece > kMaxPacket || piece < -static_cast<int64_t>(kMaxBytes)) return corrupt("packets");
      total += static_cast<uint64_t>(piece < 0 ? -piece : piece);
    }
    if (total != pipe->second.bytes.size()) return corrupt("packets");
    pipe->second.pieces.assign(extra.pieces().begin(), extra.pieces().end());
  }
  return out;
}

Result<void> fill_pipe(int fd, const DumpOutput::PipeData& data) {
  const auto& bytes = data.bytes;
  int size = static_cast<int>(data.entry.size());
  // Buffers that came by splice(2) may hold more than a pipe of this size takes by write(2).
  if (size > 0 && bytes.size() > static_cast<size_t>(size)) size = static_cast<int>(bytes.size());
  if (size > 0 && ::fcntl(fd, F_GETPIPE_SZ) != size && ::fcntl(fd, F_SETPIPE_SZ, size) < 0)
    return fail_sys(Code::kRestoreFailed, "fcntl(F_SETPIPE_SZ)", cat(size, " bytes"));
  const std::string name = cat("pipe ", data.entry.pipe_id());
  // More than fits would block for ever.
  auto put = [&](int flags, const char* from, size_t length) -> Result<void> {
    if (::fcntl(fd, F_SETFL, O_NONBLOCK | flags) < 0) return fail_sys("fcntl(F_SETFL)", name);
    return length ? write_full(fd, from, length, name) : Result<void>();
  };
  if (data.pieces.empty()) return put(0, bytes.data(), bytes.size());
  size_t at = 0;
  for (const int64_t piece : data.pieces) {
    const auto length = static_cast<size_t>(piece < 0 ? -piece : piece);
    TRY(put(piece < 0 ? 0 : O_DIRECT, bytes.data() + at, length));
    at += length;
  }
  return {};
}

namespace {

Result<void> dump(const Candidate& c, const DumpEnv&, DumpOutput& out, pb::file_entry& entry) {
  auto& pipe = *entry.mutable_pipe();
  entry.set_type(pb::PIPE);
  pipe.set_id(entry.id());
  pipe.set_pipe_id(static_cast<uint32_t>(c.st.st_ino));
  pipe.set_flags(c.info.flags & ~uint32_t{O_CLOEXEC});
  set_no_owner(pipe.mutable_fown());
  if (out.pipes.contains(pipe.pipe_id())) return {};
  out.pipes[pipe.pipe_id()] = TRY(peek_pipe(c, pipe.pipe_id(), false, *out.images));
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
  TRY(fill_pipe(ends[1], data->second));
  return &at->second;
}

// Thousands of pipes would need twice their descriptors otherwise.
void close_when_done(uint32_t id, RestoreEnv& env) {
  if (env.pipe_users.empty())
    for (const auto& [file_id, file] : env.files)
      if (file.has_pipe()) ++env.pipe_users[file.pipe().pipe_id()];
  if (--env.pipe_users[id] == 0) env.open_pipes.erase(id);
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
  TRY(set_flags(fd.get(), pipe.flags(), key));
  close_when_done(pipe.pipe_id(), env);
  return fd;
}

}  // namespace

const FileKind kPipe = {"pipe", pb::PIPE, matches, check, dump, restore};

}  // namespace stasis::files
