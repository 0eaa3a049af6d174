// SPDX-License-Identifier: Apache-2.0
#include "engine/cli/arguments.h"

#include "engine/base/strings.h"

namespace stasis::cli {
namespace {

std::unexpected<Error> usage(std::string text) { return fail(Code::kUsage, std::move(text)); }

struct Match {
  const OptionSpec* spec = nullptr;
  bool on = true;
};

class Parser {
 public:
  Parser(std::span<const std::string> args, bool stasis_door, Request& request, std::span<const OptionSpec> extra)
      : args_(args), stasis_door_(stasis_door), request_(request), extra_(extra) {}

  Result<void> run() {
    for (; next_ < args_.size(); ++next_) {
      const std::string& arg = args_[next_];
      if (arg == "--") {
        request_.words.insert(request_.words.end(), args_.begin() + static_cast<long>(next_) + 1, args_.end());
        break;
      }
      if (arg.starts_with("--")) {
        TRY(long_option(std::string_view(arg).substr(2)));
      } else if (arg.size() > 1 && arg[0] == '-') {
        TRY(letters(std::string_view(arg).substr(1)));
      } else {
        request_.words.push_back(arg);
      }
    }
    return {};
  }

 private:
  template <class Visit>
  void each(Visit visit) const {
    for (const auto& spec : extra_) visit(spec, false);
    for (const auto& spec : option_table())
      if (stasis_door_ || !(spec.where & kStasisOnly)) visit(spec, true);
  }

  // Exact names first, then "no-NAME", then a prefix that only one option has.
  Result<Match> find(std::string_view name) const {
    Match exact;
    std::vector<Match> prefixed;
    each([&](const OptionSpec& spec, bool shared) {
      const bool hidden = shared && overridden(spec.name);
      if (hidden) return;
      const std::string no = spec.negatable ? cat("no-", spec.name) : "";
      if (spec.name == name)
        exact = {&spec, true};
      else if (!no.empty() && no == name && !exact.spec)
        exact = {&spec, false};
      else if (spec.name.starts_with(name))
        prefixed.push_back({&spec, true});
      else if (!no.empty() && no.starts_with(name))
        prefixed.push_back({&spec, false});
    });
    if (exact.spec) return exact;
    if (prefixed.size() == 1) return prefixed[0];
    if (prefixed.empty()) return usage(cat("unknown option --", name));
    return usage(cat("option --", name, " could be --", prefixed[0].spec->name, " or --", prefixed[1].spec->name));
  }

  bool overridden(std::string_view name) const {
    for (const auto& spec : extra_)
      if (spec.name == name) return true;
    return false;
  }

  Result<void> long_option(std::string_view text) {
    const size_t eq = text.find('=');
    const std::string_view name = text.substr(0, eq);
    if (name.empty()) return usage(cat("unknown option --", text));
    const Match match = TRY(find(name));
    const OptionSpec& spec = *match.spec;
    if (eq != std::string_view::npos) {
      if (spec.arg == Arg::kNone || !match.on) return usage(cat("option --", spec.name, " takes no value"));
      return apply(spec, text.substr(eq + 1), true);
    }
    if (spec.arg == Arg::kRequired) return apply(spec, TRY(following(cat("--", spec.name))), true);
    return apply(spec, {}, match.on);
  }

  Result<void> letters(std::string_view text) {
    while (!text.empty()) {
      const char letter = text[0];
      text.remove_prefix(1);
      const OptionSpec* spec = nullptr;
      each([&](const OptionSpec& candidate, bool) {
        if (candidate.letter == letter && !spec) spec = &candidate;
      });
      if (!spec) return usage(cat("unknown option -", std::string(1, letter)));
      if (spec->arg == Arg::kNone) {
        TRY(apply(*spec, {}, true));
        continue;
      }
      if (spec->arg == Arg::kRequired && text.empty())
        return apply(*spec, TRY(following(cat("-", std::string(1, letter)))), true);
      return apply(*spec, text, true);
    }
    return {};
  }

  Result<std::string> following(std::string option) {
    if (next_ + 1 >= args_.size()) return usage(cat("option ", option, " needs a value"));
    return args_[++next_];
  }

  Result<void> apply(const OptionSpec& spec, std::string_view value, bool on) {
    if (!spec.set) {
      request_.extra[std::string(spec.name)].emplace_back(value);
      return {};
    }
    TRY_CTX(spec.set(request_, value, on), "option --", spec.name);
    return {};
  }

  std::span<const std::string> args_;
  bool stasis_door_;
  Request& request_;
  std::span<const OptionSpec> extra_;
  size_t next_ = 0;
};

}  // namespace

Result<void> parse_arguments(std::span<const std::string> args, bool stasis_door, Request& request,
                             std::span<const OptionSpec> extra) {
  request.verbosity = 0;
  return Parser(args, stasis_door, request, extra).run();
}

Result<void> take_exec_cmd(Request& request, size_t first) {
  const size_t count = request.words.size();
  if (!request.exec_cmd) {
    if (count > first) return usage(cat("unexpected word \"", request.words[first], "\""));
    return {};
  }
  if (count <= first) return usage("--exec-cmd needs a command after --");
  request.opts.clear_exec_cmd();
  for (size_t i = first; i < count; ++i) request.opts.add_exec_cmd(request.words[i]);
  request.words.resize(first);
  return {};
}

}  // namespace stasis::cli
