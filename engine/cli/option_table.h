// SPDX-License-Identifier: Apache-2.0
// The one table of options: the criu command line, config files and the stasis command
// line set fields of pb::criu_opts through it. Names and meanings are criu(8)'s.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "engine/base/result.h"
#include "engine/cli/request.h"

namespace stasis::cli {

enum class Arg { kNone, kRequired, kOptional };

enum class Support {
  kBuilt,    // has an effect
  kNoOp,     // accepted; nothing here depends on it (the help text says why)
  kRefused,  // accepted by the parser, refused by name in validate()
};

enum : unsigned {  // where an option means something
  kDump = 1,
  kRestore = 2,
  kCheck = 4,
  kOther = 8,        // pre-dump, page-server, service, lazy-pages, dedup, cpuinfo
  kCliOnly = 16,     // not allowed in a config file
  kStasisOnly = 32,  // not an option of criu
};

// `value` is empty for a kOptional option without one; `on` is false for --no-NAME.
using Setter = Result<void> (*)(Request& request, std::string_view value, bool on);

struct OptionSpec {
  char letter = 0;  // short form; 0: none
  std::string_view name;
  Arg arg = Arg::kNone;
  bool negatable = false;
  Support support = Support::kBuilt;
  unsigned where = 0;
  std::string_view fields;  // criu_opts fields it fills, separated by blanks
  std::string_view metavar;
  std::string_view help;
  Setter set = nullptr;  // null: the value is appended to Request::extra[name]
};

std::span<const OptionSpec> option_table();

// Fields that no option fills, and why.
struct RpcOnlyField {
  std::string_view field, reason;
};
std::span<const RpcOnlyField> rpc_only_fields();

// "  -D, --images-dir DIR   text" for the options of `where`, one per line.
std::string option_help(unsigned where, bool stasis_door, std::span<const OptionSpec> extra = {});

// "10M" -> bytes; K, M, G.
Result<uint64_t> parse_size(std::string_view text);

}  // namespace stasis::cli
