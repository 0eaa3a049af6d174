// SPDX-License-Identifier: Apache-2.0
// CRIU's config files: one long option per line without dashes, an optional value after blanks or
// '=', '#' comments, "..." quoting with \" and \\ inside.
#pragma once

#include <string>
#include <string_view>

#include "engine/cli/option_table.h"

namespace stasis::cli {

// `name` is for messages. Values override those already in `request`; lists grow.
Result<void> parse_config(std::string_view text, std::string_view name, Request& request);

// Reads one file; false: there is none (not an error).
Result<bool> read_config(const std::string& path, Request& request);

struct ConfigPlaces {
  std::string system = "/etc/criu/default.conf";
  std::string home;         // $HOME; empty: none
  std::string environment;  // $CRIU_CONFIG_FILE; empty: none
};
ConfigPlaces config_places();  // of this process

// The files every invocation reads, in order of rising precedence.
Result<void> read_default_configs(const ConfigPlaces& places, Request& request);

}  // namespace stasis::cli
