// SPDX-License-Identifier: Apache-2.0
// Requests, config files and command lines from anywhere: parsed and converted, nothing opened.
#include <google/protobuf/stubs/logging.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/strings.h"
#include "engine/cli/arguments.h"
#include "engine/cli/config_file.h"
#include "engine/cli/validate.h"
#include "engine/rpc/responses.h"
#include "engine/rpc/server.h"

namespace {

using namespace stasis;

const auto kProtobufTalks = google::protobuf::SetLogHandler(nullptr);  // about each string that is not UTF-8

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

// The first byte chooses the reader.
std::vector<std::string> fuzz_seeds() {
  pb::criu_req request;
  request.set_type(pb::RESTORE);
  auto* opts = request.mutable_opts();
  opts->set_images_dir_fd(7);
  opts->set_log_file("restore.log");
  opts->set_root("/run/runc/c/criu-root");
  opts->set_rst_sibling(true);
  opts->set_empty_ns(0x40000000);
  opts->set_manage_cgroups_mode(pb::SOFT);
  opts->add_external("mnt[/a]:b");
  opts->add_exec_cmd("/bin/true");
  auto* root = opts->add_cg_root();
  root->set_ctrl("cpu,cpuacct");
  root->set_path("/a/b");
  auto* inherit = opts->add_inherit_fd();
  inherit->set_key("pipe:[1]");
  inherit->set_fd(1);
  auto* map = opts->add_ext_mnt();
  map->set_key("/dev/console");
  map->set_val("console");
  return {std::string(1, '\0') + request.SerializeAsString(), std::string("\0\x08\x0a", 3),
          "\1log-file \"a b\"\ncgroup-root=cpu:/x # c\nno-file-locks\nexternal mnt[]:ms\nghost-limit 3M\n",
          "\2restore\n-D\n/x\n--ext-mount-map\nauto\n-v4\n--cgroup-root\nname=systemd:/d\n-J\nnet:/n,1\n--\nCMD"};
}

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
