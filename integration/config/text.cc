// SPDX-License-Identifier: Apache-2.0
#include "integration/config/text.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "engine/base/io.h"
#include "integration/config/node.h"

namespace stasis::integration::config {

Result<std::string> read_text(const std::string& path) {
  const auto bad = [&](std::string_view what) {
    return fail(Error(Code::kBadDescription, cat(path, ": ", what)).about(path));
  };
  // Not to wait for the writer of a FIFO.
  const Fd fd = TRY(open_at(AT_FDCWD, path, O_RDONLY | O_NONBLOCK | O_NOCTTY));
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) return fail_sys("stat", path);
  if (!S_ISREG(status.st_mode)) return bad("not a regular file");
  if (status.st_size > static_cast<off_t>(kMaxText)) return bad("larger than 16 MiB");
  return read_all(fd.get(), kMaxText, path);
}

}  // namespace stasis::integration::config
