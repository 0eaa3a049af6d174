// SPDX-License-Identifier: Apache-2.0
// Requests, config files and command lines from anywhere: parsed and converted, nothing opened.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "engine/base/strings.h"
#include "engine/cli/arguments.h"
#include "engine/cli/config_file.h"
#include "engine/cli/validate.h"
#include "engine/rpc/responses.h"
#include "engine/rpc/server.h"

namespace {

using namespace stasis;

void convert_everywhere(const pb::criu_opts& opts) {
  for (const auto action : {cli::Action::kDump, cli::Action::kRestore})
    for (const auto door : {cli::Door::kRpc, cli::Door::kCriu, cli::Door::kStasis}) {
      auto options = cli::convert(opts, {.action = action, .door = door, .peer = 1});
      if (options) continue;
      const auto response = rpc::failure(pb::DUMP, options.error());
      if (response.ByteSizeLong() > 1200 || options.error().message().empty()) __builtin_trap();
    }
}

void command_line(std::string_view text) {
  std::vector<std::string> args;
  for (const auto word : split(text, '\n')) args.emplace_back(word);
  cli::Request request;
  if (cli::parse_arguments(args, true, request)) convert_everywhere(request.opts);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 3 == 0) {
    auto request = rpc::parse_request(rest);
    if (request) convert_everywhere(request->opts());
  } else if (data[0] % 3 == 1) {
    cli::Request request;
    if (cli::parse_config(rest, "fuzz", request)) convert_everywhere(request.opts);
  } else {
    command_line(rest);
  }
  return 0;
}
