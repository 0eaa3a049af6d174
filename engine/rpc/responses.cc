// SPDX-License-Identifier: Apache-2.0
#include "engine/rpc/responses.h"

#include <cerrno>

#include "engine/cli/criu_main.h"

namespace stasis::rpc {

pb::criu_resp success(pb::criu_req_type type) {
  pb::criu_resp response;
  response.set_type(type);
  response.set_success(true);
  return response;
}

pb::criu_resp failure(pb::criu_req_type type, const Error& error) {
  pb::criu_resp response;
  response.set_type(type);
  response.set_success(false);
  response.set_cr_errno(response_errno(error));
  response.set_cr_errmsg(response_text(error));
  return response;
}

pb::criu_resp version_response() {
  pb::criu_resp response = success(pb::VERSION);
  response.mutable_version()->set_major_number(cli::kCriuMajor);
  response.mutable_version()->set_minor_number(cli::kCriuMinor);
  return response;
}

pb::criu_resp features_response() {
  // Always all of them: runc looks at each one it asked for, and panics when the message is absent.
  pb::criu_resp response = success(pb::FEATURE_CHECK);
  response.mutable_features()->set_mem_track(false);
  response.mutable_features()->set_lazy_pages(false);
  response.mutable_features()->set_pidfd_store(false);
  return response;
}

bool is_unbuilt(pb::criu_req_type type) {
  switch (type) {
    case pb::PRE_DUMP:
    case pb::SINGLE_PRE_DUMP:
    case pb::PAGE_SERVER:
    case pb::PAGE_SERVER_CHLD:
    case pb::CPUINFO_DUMP:
    case pb::CPUINFO_CHECK:
    case pb::WAIT_PID: return true;
    default: return false;
  }
}

bool is_question(pb::criu_req_type type) {
  return type == pb::VERSION || type == pb::FEATURE_CHECK || type == pb::CHECK || is_unbuilt(type);
}

int response_errno(const Error& error) {
  if (error.sys_errno() > 0) return error.sys_errno();
  switch (error.code()) {
    case Code::kUsage:
    case Code::kBadOption:
    case Code::kProtocol:
    case Code::kCgroupRoot: return EBADRQC;
    case Code::kPermission: return EPERM;
    case Code::kNotFound:
    case Code::kBadSupervisor:
    case Code::kImageDir:
    case Code::kImageMissing:
    case Code::kFileMissing:
    case Code::kMountTarget: return ENOENT;
    case Code::kNoSpace: return ENOSPC;
    case Code::kInterrupted: return EINTR;
    case Code::kTimeout: return ETIMEDOUT;
    case Code::kNoContainer:
    case Code::kTaskGone: return ESRCH;
    case Code::kPidTaken: return EEXIST;
    case Code::kBusy:
    case Code::kTraced: return EBUSY;
    case Code::kUnsupported:
    case Code::kUnsupportedOption:
    case Code::kUnsupportedFile:
    case Code::kUnsupportedMemory:
    case Code::kUnsupportedNamespace:
    case Code::kUnsupportedMount:
    case Code::kKernelFeature:
    case Code::kOutsideFile: return ENOTSUP;
    case Code::kImageCorrupt:
    case Code::kImageVersion:
    case Code::kImageArch: return EINVAL;
    default: return EIO;
  }
}

std::string response_text(const Error& error) {
  const std::string line = error.line();
  std::string out;
  for (size_t i = 0; i < line.size();) {
    const auto c = static_cast<unsigned char>(line[i]);
    const size_t length = c < 0x80                ? 1
                          : c >= 0xf0 && c < 0xf5 ? 4
                          : c >= 0xe0 && c < 0xf0 ? 3
                          : c >= 0xc2 && c < 0xe0 ? 2
                                                  : 0;
    bool valid = length > 0 && i + length <= line.size();
    for (size_t k = 1; valid && k < length; ++k) valid = (static_cast<unsigned char>(line[i + k]) & 0xc0) == 0x80;
    const std::string piece = !valid ? "?" : c < 0x20 || c == 0x7f ? " " : line.substr(i, length);
    if (out.size() + piece.size() > kMaxMessageText) break;
    out += piece;
    i += valid ? length : 1;
  }
  return out;
}

}  // namespace stasis::rpc
