// SPDX-License-Identifier: Apache-2.0
// Captured mount tables for the tests of the mounts room.
#pragma once

namespace stasis::mounts::samples {

// A container of runc 1.1.5, cgroup v1, shortened.
inline constexpr char kRunc[] =
    R"(65 43 254:0 /b/rootfs / rw,relatime - ext4 /dev/vda rw,discard
66 65 0:40 / /proc rw,relatime - proc proc rw
67 65 0:41 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755
68 67 0:42 / /dev/pts rw,nosuid,noexec,relatime - devpts devpts rw,gid=5,mode=620,ptmxmode=666
69 67 0:43 / /dev/shm rw,nosuid,nodev,noexec,relatime - tmpfs shm rw,size=65536k
70 67 0:39 / /dev/mqueue rw,nosuid,nodev,noexec,relatime - mqueue mqueue rw
71 65 0:44 / /sys ro,nosuid,nodev,noexec,relatime - sysfs sysfs ro
72 71 0:45 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,mode=755
73 72 0:29 /c1 /sys/fs/cgroup/cpu ro,nosuid,nodev,noexec,relatime - cgroup cgroup rw,cpu
44 66 0:40 /bus /proc/bus ro,relatime - proc proc rw
48 66 0:46 / /proc/acpi ro,relatime - tmpfs tmpfs ro
49 66 0:41 /null /proc/keys rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755
)";

// The engine's own namespace beside it.
inline constexpr char kHost[] =
    R"(22 27 0:21 / /proc rw,relatime - proc proc rw
23 27 0:22 / /sys rw,relatime - sysfs sysfs rw
24 27 0:6 / /dev rw,relatime - devtmpfs devtmpfs rw,mode=755
25 24 0:23 / /dev/shm rw,relatime - tmpfs tmpfs rw
27 1 254:0 / / rw,relatime shared:100 - ext4 /dev/vda rw,discard
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
50 27 8:17 / /data rw,relatime shared:9 - ext4 /dev/sdb1 rw
51 27 8:17 /v /data/v rw,relatime - ext4 /dev/sdb1 rw
)";

// Peers, slaves, and mounts hidden by others.
inline constexpr char kShared[] =
    R"(77 43 254:0 /root / rw,relatime - ext4 /dev/vda rw
45 77 0:43 / /a rw,relatime shared:1 - tmpfs ta rw
46 77 0:43 / /b rw,relatime shared:1 - tmpfs ta rw
47 77 0:43 / /c rw,relatime master:1 - tmpfs ta rw
48 77 0:43 /sub /d rw,relatime shared:2 master:1 - tmpfs ta rw
64 77 0:45 / /oc rw,relatime - tmpfs low rw
65 64 0:46 / /oc/deep rw,relatime - tmpfs deep rw
66 64 0:47 / /oc rw,relatime - tmpfs high rw
68 77 0:59 / /e rw,relatime - tmpfs cover rw
67 77 0:58 / /e/x/y rw,relatime - tmpfs hid rw
)";

}  // namespace stasis::mounts::samples
