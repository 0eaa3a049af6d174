// SPDX-License-Identifier: Apache-2.0
#include "engine/tasks/restore_creds.h"

#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

namespace stasis::tasks {
namespace {

uint64_t bits(const google::protobuf::RepeatedField<uint32_t>& words) {
  uint64_t out = 0;
  for (int i = 0; i < words.size() && i < 2; ++i) out |= uint64_t{words[i]} << (32 * i);
  return out;
}

int last_capability() {
  int last = 40;  // CAP_CHECKPOINT_RESTORE, the newest
  while (last < 63 && ::prctl(PR_CAPBSET_READ, last + 1) >= 0) ++last;
  while (last > 0 && ::prctl(PR_CAPBSET_READ, last) < 0) --last;
  return last;
}

}  // namespace

Result<void> add_creds(remote::Batch& batch, const pb::creds_entry& c, const pb::task_extra* extra, bool setgroups) {
  if (c.cap_prm_size() > 2 || c.cap_eff_size() > 2 || c.cap_inh_size() > 2 || c.cap_bnd_size() > 2 ||
      c.groups_size() > 65536)
    return fail(Code::kImageCorrupt, "credentials of a wrong size");
  auto must = [&](const char* what) { batch.must(what); };
  // No set changes by itself when ids change, and capabilities survive the change.
  batch.add(__NR_prctl, PR_SET_SECUREBITS, SECBIT_KEEP_CAPS | SECBIT_NO_SETUID_FIXUP);
  must("prctl(PR_SET_SECUREBITS)");
  if (setgroups) {
    std::vector<uint32_t> groups(c.groups().begin(), c.groups().end());
    batch.add(__NR_setgroups, groups.size(), batch.data(groups.data(), groups.size() * 4));
    must("setgroups");
  }
  batch.add(__NR_setresgid, c.gid(), c.egid(), c.sgid());
  must("setresgid");
  batch.add(__NR_setfsgid, c.fsgid());
  batch.add(__NR_setresuid, c.uid(), c.euid(), c.suid());
  must("setresuid");
  batch.add(__NR_setfsuid, c.fsuid());
  const uint64_t bounding = bits(c.cap_bnd());
  const int last = last_capability();
  for (int cap = 0; cap <= last; ++cap)
    if (!(bounding >> cap & 1)) {
      batch.add(__NR_prctl, PR_CAPBSET_DROP, cap);
      must("prctl(PR_CAPBSET_DROP)");
    }
  // Inheritable and ambient while every capability is still permitted; securebits need
  // CAP_SETPCAP, so they go before the last capset(2).
  const uint64_t permitted = bits(c.cap_prm()), effective = bits(c.cap_eff()), inheritable = bits(c.cap_inh());
  const __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  auto capset = [&](uint64_t p, uint64_t e, uint64_t i) {
    const __user_cap_data_struct data[2] = {
        {static_cast<uint32_t>(e), static_cast<uint32_t>(p), static_cast<uint32_t>(i)},
        {static_cast<uint32_t>(e >> 32), static_cast<uint32_t>(p >> 32), static_cast<uint32_t>(i >> 32)}};
    batch.add(__NR_capset, batch.put(header), batch.data(data, sizeof(data)));
    must("capset");
  };
  const uint64_t ambient = extra ? extra->cap_ambient() : 0;
  batch.add(__NR_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  // CAP_SETPCAP stays for the next call.
  constexpr uint64_t kSetpcap = uint64_t{1} << CAP_SETPCAP;
  capset(permitted | kSetpcap, effective | kSetpcap, inheritable);
  for (int cap = 0; cap <= last; ++cap)
    if (ambient >> cap & 1) {
      batch.add(__NR_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0);
      must("prctl(PR_CAP_AMBIENT_RAISE)");
    }
  batch.add(__NR_prctl, PR_SET_SECUREBITS, c.secbits());
  must("prctl(PR_SET_SECUREBITS)");
  capset(permitted, effective, inheritable);
  return {};
}

void drop_capabilities(remote::Batch& batch) {
  batch.add(__NR_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  const __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  const __user_cap_data_struct none[2] = {};
  batch.add(__NR_capset, batch.put(header), batch.data(none, sizeof(none)));
  batch.must("capset");
}

}  // namespace stasis::tasks
