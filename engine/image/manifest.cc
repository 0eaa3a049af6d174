// SPDX-License-Identifier: Apache-2.0
#include "engine/image/manifest.h"

#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <set>

#include "engine/image/crc32c.h"
#include "engine/image/magic.h"
#include "engine/image/reader.h"

namespace stasis::image {
namespace {

constexpr size_t kChunk = 256u << 10;
#ifdef STASIS_VERSION
constexpr const char* kVersion = STASIS_VERSION;
#else
constexpr const char* kVersion = "0.1.0";
#endif

Result<void> verify_file(int dirfd, const pb::manifest_file& file) {
  Fd fd = TRY(open_image(dirfd, file.name()));
  const FileSum sum = TRY(sum_file(fd.get(), file.name()));
  if (sum.size != file.size())
    return fail(Error(Code::kImageCorrupt,
                      cat(file.name(), ": has ", sum.size, " bytes, not the ", file.size(), " of the manifest"))
                    .about(file.name()));
  if (sum.crc32c != file.crc32c())
    return fail(Error(Code::kImageCorrupt, cat(file.name(), ": checksum ", hex(sum.crc32c), ", not the ",
                                               hex(file.crc32c()), " of the manifest"))
                    .about(file.name()));
  return {};
}

}  // namespace

Result<FileSum> sum_file(int fd, const std::string& name) {
  const auto buffer = std::make_unique_for_overwrite<char[]>(kChunk);
  FileSum sum;
  while (true) {
    const ssize_t n = ::pread(fd, buffer.get(), kChunk, static_cast<off_t>(sum.size));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_sys("read", name);
    if (n == 0) return sum;
    sum.crc32c = crc32c(sum.crc32c, buffer.get(), static_cast<size_t>(n));
    sum.size += static_cast<uint64_t>(n);
  }
}

pb::manifest_entry describe_host() {
  pb::manifest_entry manifest;
  utsname host{};
  ::uname(&host);
  manifest.set_format_version(kManifestVersion);
  manifest.set_stasis_version(kVersion);
  manifest.set_arch(host.machine);
  manifest.set_kernel_release(host.release);
  manifest.set_page_size(static_cast<uint32_t>(::sysconf(_SC_PAGESIZE)));
  manifest.set_created_unix_sec(static_cast<uint64_t>(::time(nullptr)));
  return manifest;
}

uint32_t manifest_sum(pb::manifest_entry manifest) {
  manifest.clear_self_crc32c();
  const std::string bytes = manifest.SerializeAsString();
  return crc32c(0, bytes.data(), bytes.size());
}

Result<void> verify_manifest(int dirfd, const pb::manifest_entry& manifest) {
  const std::string about(kManifestName);
  if (manifest.format_version() == 0 || manifest.format_version() > kManifestVersion)
    return fail(
        Error(Code::kImageVersion, cat("manifest version ", manifest.format_version(), " is not known")).about(about));
  if (!manifest.has_self_crc32c() || manifest.self_crc32c() != manifest_sum(manifest))
    return fail(Error(Code::kImageCorrupt, cat(about, ": its own checksum is wrong")).about(about));
  const pb::manifest_entry here = describe_host();
  if (manifest.arch() != here.arch())
    return fail(Error(Code::kImageArch, cat("the images are of ", manifest.arch(), ", this machine is ", here.arch()))
                    .about(about));
  if (manifest.page_size() != here.page_size())
    return fail(Error(Code::kImageArch, cat("the images have pages of ", manifest.page_size(),
                                            " bytes, this machine of ", here.page_size()))
                    .about(about));
  std::set<std::string_view> names;
  for (const auto& file : manifest.files()) {
    if (!valid_file_name(file.name()) || file.name() == kManifestName || !names.insert(file.name()).second)
      return fail(Error(Code::kImageCorrupt, cat("the manifest lists ", json_quote(file.name()))).about(about));
    TRY(verify_file(dirfd, file));
  }
  if (!names.contains(kInventoryName))
    return fail(Error(Code::kImageCorrupt, "the manifest does not list inventory.img").about(about));
  return {};
}

}  // namespace stasis::image
