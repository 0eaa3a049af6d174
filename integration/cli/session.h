// SPDX-License-Identifier: Apache-2.0
// One run of the stasis command line: the parsed words and options, and how results are told.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "engine/base/fd.h"
#include "engine/base/result.h"
#include "engine/cli/option_table.h"

namespace stasis::integration::cli {

struct Session {
  stasis::cli::Request request;
  bool json = false;
  Fd log;  // open as long as errors may be told

  pb::criu_opts& opts() { return request.opts; }
  // The last value of an option of our own; null when it was not given.
  const std::string* value(std::string_view name) const;
  bool given(std::string_view name) const { return value(name) != nullptr; }
};

// One sub-command. `run` returns the exit status.
struct Command {
  std::string_view name;
  std::string_view usage;    // after "stasis NAME "
  std::string_view summary;  // one line
  std::string_view details;  // more for --help; may be empty
  unsigned where;            // which options of the shared table it takes (cli::kDump, ...); 0: none
  std::span<const stasis::cli::OptionSpec> extra;
  Result<int> (*run)(Session&);
  bool isolated = false;  // run it as run_isolated() does (engine/cli/process.h)
};

const Command& checkpoint_command();
const Command& restore_command();
const Command& check_command();
const Command& plan_command();
const Command& recover_command();
const Command& show_command();
const Command& supervise_command();
const Command& hook_command();  // hidden: for hooks

// --json, for the tables of the commands; its value is looked at by stasis_main.
inline constexpr stasis::cli::OptionSpec kJsonOption{0,
                                                     "json",
                                                     stasis::cli::Arg::kNone,
                                                     false,
                                                     stasis::cli::Support::kBuilt,
                                                     0,
                                                     "",
                                                     "",
                                                     "print the result, or the error, as one JSON object"};

// Every word of the command line was used: more is kUsage.
Result<void> at_most_words(const Session& session, size_t count);

// Words for messages: "12.3 ms", "1.20 s".
std::string duration_text(uint64_t microseconds);

}  // namespace stasis::integration::cli
