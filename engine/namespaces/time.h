// SPDX-License-Identifier: Apache-2.0
// time_namespaces(7) -> timens-ID.img: what CLOCK_MONOTONIC and CLOCK_BOOTTIME showed the container when it was frozen.
// timens-0.img has the same of a container that is in the host's time.
#pragma once

#include <time.h>

#include <optional>

#include "engine/base/result.h"
#include "engine/image/reader.h"
#include "engine/image/writer.h"
#include "engine/procfs/procfs.h"

namespace stasis::namespaces {

struct Clocks {
  timespec monotonic{}, boottime{};
};
// What a new time namespace is to show; a clock that is not set goes as the engine's.
struct NewTime {
  std::optional<timespec> monotonic, boottime;
};

// Other time namespaces than the root's, also for children that are still to come.
void find_nested_time(const procfs::Procfs& proc, pid_t pid, std::vector<Error>& obstacles);
// What a clock shows a task.
Result<timespec> now_of(const procfs::Procfs& proc, pid_t pid, clockid_t clock);
// In the time of the container.
Result<void> dump_time(uint32_t id, image::Writer& images);
// Nothing: no such image, or an empty one, as CRIU writes where the kernel has no time namespaces.
Result<std::optional<Clocks>> load_time(const image::Reader& images, uint32_t id);

// Of a container in the host's time: which clocks would go backwards without a time namespace. Nothing: none.
std::optional<NewTime> clocks_behind(const Clocks& at_dump);
// Makes a time namespace and enters it; its clocks go on from there. In the root task, with the engine's /proc.
Result<void> enter_new_time(const procfs::Procfs& proc, const NewTime& time);

}  // namespace stasis::namespaces
