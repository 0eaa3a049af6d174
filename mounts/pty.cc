// SPDX-License-Identifier: Apache-2.0
#include "mounts/pty.h"

#include <fcntl.h>
#include <sys/ioctl.h>

#include "engine/base/io.h"

namespace stasis::mounts {

Result<Fd> open_master(int dirfd, const std::string& ptmx, uint32_t index, Masters& unused) {
  constexpr uint32_t kMaxIndex = 4096;  // kernel.pty.max
  const auto taken = [&] {
    return fail(Error(Code::kRestoreFailed, cat("terminal /dev/pts/", index, " is taken in the restored devpts"))
                    .about(cat("/dev/pts/", index)));
  };
  if (index >= kMaxIndex) return taken();
  while (true) {
    if (const auto node = unused.extract(index)) return std::move(node.mapped());
    Fd master = TRY(open_at(dirfd, ptmx, O_RDWR | O_NOCTTY));
    unsigned number = 0;
    const int unlock = 0;
    if (::ioctl(master.get(), TIOCGPTN, &number) < 0) return fail_sys("ioctl(TIOCGPTN)", ptmx);
    if (::ioctl(master.get(), TIOCSPTLCK, &unlock) < 0) return fail_sys("ioctl(TIOCSPTLCK)", ptmx);
    unused.insert_or_assign(number, std::move(master));
    if (number > index) return taken();
  }
}

}  // namespace stasis::mounts
