// SPDX-License-Identifier: Apache-2.0
// The answers, as clients need them: each with type and success, and the parts they
// dereference without a look (dump, restore, features, version).
#pragma once

#include "engine/base/error.h"
#include "proto/rpc.pb.h"

namespace stasis::rpc {

constexpr size_t kMaxMessageText = 1000;  // go-criu reads answers into 8 KiB

pb::criu_resp success(pb::criu_req_type type);
pb::criu_resp failure(pb::criu_req_type type, const Error& error);
pb::criu_resp version_response();
pb::criu_resp features_response();
// Types that ask for something not built yet.
bool is_unbuilt(pb::criu_req_type type);
// May be followed by more requests on the same socket.
bool is_question(pb::criu_req_type type);

// What goes into cr_errno.
int response_errno(const Error& error);
// One line of valid UTF-8, at most kMaxMessageText bytes.
std::string response_text(const Error& error);

}  // namespace stasis::rpc
