// SPDX-License-Identifier: Apache-2.0
#include "engine/base/fd.h"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>

namespace stasis {

void Fd::reset() {
  if (fd_ < 0) return;
  const int saved = errno;
  if (::close(std::exchange(fd_, -1)) < 0 && errno == EBADF) std::abort();
  errno = saved;
}

}  // namespace stasis
