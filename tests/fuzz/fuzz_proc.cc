// SPDX-License-Identifier: Apache-2.0
// /proc text, which a task writes a good part of (names, paths, options of mounts), and the netlink messages that
// images hold.
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cgroups/hierarchy.h"
#include "engine/kernel/netlink.h"
#include "engine/procfs/cgroup.h"
#include "engine/procfs/mountinfo.h"
#include "engine/procfs/procfs.h"
#include "mounts/table.h"

using namespace stasis;

std::vector<std::string> fuzz_seeds() {
  return {
      "12 (a) b) S 1 12 12 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 5 4096 1 18446744073709551615 1 1 1 1 1 0 0 0 0 0 0 0 "
      "17 "
      "1 0 0 0 0 0 1 1 1 1 1 1 1 0\n",
      "Name:\ta\\nb\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t1\nPid:\t1\nPPid:\t0\nTracerPid:\t0\nUid:\t0\t0\t0\t0\n"
      "Gid:\t0\t0\t0\t0\nGroups:\t0 5 "
      "\nNStgid:\t9\t1\nNSpid:\t9\t1\nThreads:\t1\nSigPnd:\t0000000000000000\nShdPnd:\t1\n"
      "SigBlk:\t0\nSigIgn:\t0\nSigCgt:\t0\nCapInh:\t0\nCapPrm:\tff\nCapEff:\tff\nCapBnd:\tff\nCapAmb:\t0\nNoNewPrivs:"
      "\t1\n"
      "Seccomp:\t2\n",
      "7f00-8f00 r-xp 00001000 fe:01 77  /bin/a\\012b (deleted)\nRss: 4 kB\nVmFlags: rd ex mr mw me ac sd \n",
      "pos:\t5\nflags:\t0100002\nmnt_id:\t21\nino:\t9\nlock:\t1: FLOCK  ADVISORY  WRITE 5 00:1:2 0 EOF\n",
      "Limit Soft Limit Hard Limit Units\nMax open files            1024                 unlimited            files    "
      " \n",
      "30 25 0:5 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 master:3 - cgroup cgroup\\040x rw,cpu,cpuacct\n"
      "31 30 0:6 /a /b\\011c ro - ext4 /dev/sda1 rw,errors=continue\n",
      "12:cpu,cpuacct:/a\n1:name=systemd:/b\n0::/c\n",
      std::string("\x14\0\0\0\x14\0\2\0\1\0\0\0\0\0\0\0\2\x18\0\0", 20),
  };
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  (void)procfs::parse_stat(text);
  (void)procfs::parse_status(text);
  (void)procfs::parse_smaps(text);
  (void)procfs::parse_fdinfo(text);
  (void)procfs::parse_limits(text);
  (void)procfs::parse_cgroup(text);
  (void)procfs::parse_cgroups(text);
  (void)mounts::Table::parse(text);
  const size_t half = size / 2;
  (void)cgroups::parse_hierarchies(text.substr(0, half), text.substr(half));
  if (const auto messages = kernel::split_messages(text))
    for (const auto& message : *messages) {
      (void)kernel::parse_message<ifaddrmsg>(message);
      (void)kernel::parse_message<rtmsg>(message);
    }
  return 0;
}
