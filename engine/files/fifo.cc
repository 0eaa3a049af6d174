// SPDX-License-Identifier: Apache-2.0
// Named pipes, fifo(7): the path is a regular file's entry of the images, with the flags; what is in flight is that of
// a pipe. On restore a descriptor for both directions is open first, so that no open waits for its other end.
#include <fcntl.h>
#include <unistd.h>

#include "engine/base/io.h"
#include "engine/files/kind.h"
#include "engine/files/pipe.h"

namespace stasis::files {
namespace {

bool matches(const Candidate& c) {
  return S_ISFIFO(c.st.st_mode) && c.link.starts_with("/") && !(c.info.flags & O_PATH);
}

Result<void> check(const Candidate& c, const DumpEnv& env) {
  TRY(check_owner(c));
  TRY(path_in_container(c, env));
  return {};
}

Result<void> dump(const Candidate& c, const DumpEnv& env, DumpOutput& out, pb::file_entry& entry) {
  const auto [at, fresh] =
      out.fifo_ids.try_emplace({c.st.st_dev, c.st.st_ino}, static_cast<uint32_t>(out.fifo_ids.size() + 1));
  pb::file_entry path;
  path.set_id(out.next_file_id++);
  TRY(kRegular.dump(c, env, out, path));
  path.mutable_reg()->set_pos(0);
  out.files.push_back(path);
  entry.set_type(pb::FIFO);
  auto& fifo = *entry.mutable_fifo();
  fifo.set_id(entry.id());
  fifo.set_pipe_id(at->second);
  fifo.set_regf_id(path.id());
  if (fresh) out.fifos[at->second] = TRY(peek_pipe(c, at->second, true, *out.images));
  return {};
}

Result<Fd> restore(const pb::file_entry& entry, RestoreEnv& env) {
  auto corrupt = [&](std::string_view what) {
    return fail(Code::kImageCorrupt, cat("files.img: named pipe ", entry.id(), " ", what));
  };
  if (!entry.has_fifo()) return corrupt("is none");
  const auto path = env.files.find(entry.fifo().has_regf_id() ? entry.fifo().regf_id() : entry.fifo().id());
  if (path == env.files.end() || !path->second.has_reg()) return corrupt("has no path");
  const auto& reg = path->second.reg();
  if (reg.has_mode() && !S_ISFIFO(reg.mode())) return corrupt("is another kind of file");
  const Fd node = TRY(kRegular.restore(path->second, env));
  struct stat st {};
  if (::fstat(node.get(), &st) < 0) return fail_sys("fstat", reg.name());
  if (!S_ISFIFO(st.st_mode))
    return fail(Error(Code::kFileMissing, cat("file ", reg.name(), " is of another type now")).about(reg.name()));
  const std::string self = cat("self/fd/", node.get());
  auto [keeper, fresh] = env.open_fifos.try_emplace(entry.fifo().pipe_id());
  if (fresh) {
    keeper->second = TRY(open_at(env.proc, self, O_RDWR | O_NONBLOCK));
    if (const auto data = env.fifos->find(entry.fifo().pipe_id()); data != env.fifos->end())
      TRY_CTX(fill_pipe(keeper->second.get(), data->second), reg.name());
  }
  Fd fd = TRY(open_at(env.proc, self, static_cast<int>(reg.flags() & O_ACCMODE) | O_NONBLOCK));
  TRY(set_flags(fd.get(), reg.flags(), reg.name()));
  return fd;
}

}  // namespace

const FileKind kFifo = {"named pipe", pb::FIFO, matches, check, dump, restore};

}  // namespace stasis::files
