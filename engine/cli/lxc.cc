// SPDX-License-Identifier: Apache-2.0
#include "engine/cli/lxc.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "engine/base/io.h"
#include "engine/base/strings.h"
#include "engine/procfs/procfs.h"
#include "mounts/table.h"

namespace stasis::cli {
namespace {

Result<bool> on_our_devpts(std::string_view key) {
  const auto dev = parse_int<uint64_t>(key.substr(key.find(':') + 1), 16);
  if (!dev) return true;  // no terminal's name: nothing to do
  const auto proc = TRY(procfs::Procfs::open());
  const auto table = TRY(mounts::Table::read(proc.fd(), "self"));
  return !table.of_device(mounts::kernel_dev(major(*dev), minor(*dev))).empty();
}

Result<void> settle(const Options& options, const External& terminal) {
  if (TRY(on_our_devpts(terminal.key))) return {};
  const std::string text = cat("tty[", terminal.key, "]");
  auto file = open_at(options.images_dir.get(), "tty.info", O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
  if (!file && file.error().sys_errno() == ENOENT) return {};
  const Fd fd = TRY(std::move(file));
  struct stat st {};
  std::string found(text.size(), '\0');
  if (::fstat(fd.get(), &st) < 0 || !S_ISREG(st.st_mode) || st.st_size != static_cast<off_t>(text.size())) return {};
  if (::pread(fd.get(), found.data(), found.size(), 0) != st.st_size || found != text) return {};
  if (::ftruncate(fd.get(), 0) < 0) return fail_sys("ftruncate", "tty.info");
  log::info("dump: ", text, " is the container's own, so LXC cannot give it on restore; tty.info is emptied");
  return {};
}

}  // namespace

void settle_tty_info(const Options& options) {
  for (const auto& e : options.externals)
    if (e.kind == "tty")
      if (auto r = settle(options, e); !r) log::warning("tty.info: ", r.error().line(), ", ignoring");
}

}  // namespace stasis::cli
