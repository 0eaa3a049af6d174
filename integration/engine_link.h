// SPDX-License-Identifier: Apache-2.0
// One run of another engine: `PATH swrk 3`, and the socket on which it takes one request.
#pragma once

#include <sys/types.h>

#include <span>
#include <string>
#include <vector>

#include "engine/base/fd.h"
#include "engine/base/result.h"
#include "proto/rpc.pb.h"

namespace stasis::integration {

class EngineLink {
 public:
  static constexpr int kSocket = 3;  // in the engine; passed descriptors follow it

  // `passed[i]` becomes kSocket + 1 + i in the engine. With `stdio` it has our descriptors 0-2, else only our standard
  // error. A name without a slash is searched on PATH.
  static Result<EngineLink> start(const std::string& path, std::span<const int> passed, bool stdio);
  EngineLink(EngineLink&& other) noexcept;
  EngineLink& operator=(EngineLink&&) = delete;
  ~EngineLink();  // hangs up, which ends an engine that still works, and waits for that

  Result<void> send(const pb::criu_req& request);
  struct Received {
    pb::criu_resp response;
    Fd fd;  // that came along, or none
  };
  // kEngineFailed when the engine hung up.
  Result<Received> receive();
  // Hangs up; "exit status 1", "signal 9", or nothing for success.
  std::string finish();

 private:
  EngineLink(std::string path, Fd socket, pid_t pid) : path_(std::move(path)), socket_(std::move(socket)), pid_(pid) {}
  std::string path_;
  Fd socket_;
  pid_t pid_ = -1;
};

}  // namespace stasis::integration
