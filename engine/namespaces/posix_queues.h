// SPDX-License-Identifier: Apache-2.0
// POSIX message queues, mq_overview(7): limits, owners and messages -> mqueue-N.img. They are seen through a mount of
// their file system that nobody else has. Nothing but taking them out shows messages: they are put back at once, and
// come to lie as they did. Who is to be told of the next one (mq_notify(3)) would be told by that, and is refused.
#pragma once

#include <string>

#include "engine/base/fd.h"
#include "engine/base/result.h"
#include "engine/image/reader.h"
#include "engine/image/writer.h"
#include "engine/procfs/id_map.h"

namespace stasis::namespaces {

// The file system of the ipc namespace that we are in; invalid on a kernel without.
Result<Fd> mount_posix_queues();
// Its device in the namespace of that process; 0 on a kernel without.
Result<dev_t> posix_queues_device(int pidfd);

// Of a descriptor that can be read from. Fails if a process waits for notification.
Result<void> check_posix_queue(int fd, const std::string& name);
// `fd`: for reading and writing, not blocking.
Result<void> dump_posix_queue(int fd, const std::string& name, const procfs::UserMaps* users, image::RecordFile& file);
// Those that have a name, of the ipc namespace of that process; whether there are some.
Result<bool> dump_posix_queues(int pidfd, image::Writer& images, const procfs::UserMaps* users);

// All of the images; true if there are some. `container`: it has an ipc namespace of its own.
Result<bool> check_posix_queue_images(const image::Reader& images, bool container);
Result<void> restore_posix_queues(const image::Reader& images);
// One that lost its name: it has one until all who have it open have opened it.
Result<Fd> restore_posix_queue_without_name(const image::Reader& images, uint32_t id);

}  // namespace stasis::namespaces
