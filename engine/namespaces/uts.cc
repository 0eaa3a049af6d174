// SPDX-License-Identifier: Apache-2.0
// uts_namespaces(7): host name and domain name -> utsns-ID.img.
#include <sys/utsname.h>
#include <unistd.h>

#include "engine/namespaces/namespaces.h"
#include "proto/namespaces.pb.h"

namespace stasis::namespaces {

Result<void> dump_uts(uint32_t id, image::Writer& images) {
  utsname name{};
  if (::uname(&name) < 0) return fail_sys("uname");
  pb::utsns_entry entry;
  entry.set_nodename(name.nodename);
  entry.set_domainname(name.domainname);
  return images.put(image::Kind::kUtsns, cat("utsns-", id, ".img"), entry);
}

Result<void> restore_uts(uint32_t id, const image::Reader& images) {
  const auto entry = TRY(images.read<pb::utsns_entry>(image::Kind::kUtsns, cat("utsns-", id, ".img")));
  if (::sethostname(entry.nodename().data(), entry.nodename().size()) < 0)
    return fail_sys("sethostname", entry.nodename());
  if (::setdomainname(entry.domainname().data(), entry.domainname().size()) < 0)
    return fail_sys("setdomainname", entry.domainname());
  return {};
}

}  // namespace stasis::namespaces
