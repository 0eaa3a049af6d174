// SPDX-License-Identifier: Apache-2.0
// What one command line, config file or RPC message says, before it is checked.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "proto/rpc.pb.h"

namespace stasis::cli {

struct Request {
  // Everything a checkpoint or restore depends on. images_dir_fd is `required` on the wire; -1: see images_dir.
  pb::criu_opts opts;

  // The rest means something on a command line only.
  bool help = false;
  bool version = false;
  bool exec_cmd = false;  // the words after the sub-command are the supervisor
  bool daemon = false;    // service
  bool default_config = true;
  std::optional<std::string> config_file;
  std::vector<std::string> features;  // check --feature
  bool check_all = false;             // check --all, --extra, --experimental
  std::vector<int> close_fds;
  int verbosity = 0;                     // counts -v, -vv
  std::vector<std::string> unsupported;  // options given that are not built and have no field to be refused by
  std::map<std::string, std::vector<std::string>, std::less<>> extra;  // values of the caller's own options
  std::vector<std::string> words;                                      // what is not an option, in order

  Request() { opts.set_images_dir_fd(-1); }
};

}  // namespace stasis::cli
