// SPDX-License-Identifier: Apache-2.0
#include "engine/cli/option_table.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "engine/base/strings.h"

namespace stasis::cli {
namespace {

// A value that each option with an argument accepts.
const std::map<std::string_view, std::string_view> kSamples = {
    {"tree", "12"},
    {"timeout", "3"},
    {"verbosity", "4"},
    {"pre-dump-mode", "read"},
    {"port", "27"},
    {"ps-socket", "5"},
    {"status-fd", "5"},
    {"ghost-limit", "2M"},
    {"file-validation", "filesize"},
    {"ext-mount-map", "/a:b"},
    {"inherit-fd", "fd[4]:pipe:[7]"},
    {"join-ns", "net:/run/netns/x"},
    {"empty-ns", "net"},
    {"ext-unix-sk", "77"},
    {"veth-pair", "a=b"},
    {"close", "9"},
    {"manage-cgroups", "full"},
    {"cgroup-root", "cpu:/x"},
    {"network-lock", "skip"},
    {"cpu-cap", "cpu,ins"},
};

std::string_view sample(const OptionSpec& spec) {
  if (spec.arg == Arg::kNone) return {};
  const auto it = kSamples.find(spec.name);
  return it == kSamples.end() ? "text" : it->second;
}

std::set<std::string> named_fields(const OptionSpec& spec) {
  std::set<std::string> out;
  for (const auto name : fields(spec.fields)) out.insert(std::string(name));
  return out;
}

std::set<std::string> set_fields(const pb::criu_opts& opts) {
  std::vector<const google::protobuf::FieldDescriptor*> list;
  opts.GetReflection()->ListFields(opts, &list);
  std::set<std::string> out;
  for (const auto* field : list)
    if (field->name() != "images_dir_fd") out.insert(field->name());
  return out;
}

TEST(OptionTable, EveryFieldIsFilledByAnOptionOrIsRpcOnlyWithAReason) {
  std::set<std::string> filled;
  for (const auto& spec : option_table()) filled.merge(named_fields(spec));
  filled.insert("images_dir_fd");  // the required half of images_dir
  for (const auto& [field, reason] : rpc_only_fields()) {
    EXPECT_FALSE(reason.empty()) << field;
    EXPECT_FALSE(filled.contains(std::string(field))) << field << " has an option and is listed as RPC only";
    filled.insert(std::string(field));
  }
  const auto* descriptor = pb::criu_opts::descriptor();
  for (int i = 0; i < descriptor->field_count(); ++i)
    EXPECT_TRUE(filled.contains(descriptor->field(i)->name())) << descriptor->field(i)->name() << " has no option";
  for (const auto& name : filled) EXPECT_NE(descriptor->FindFieldByName(name), nullptr) << name << " is no field";
}

TEST(OptionTable, SettersFillTheFieldsTheTableNamesAndNoOthers) {
  for (const auto& spec : option_table()) {
    ASSERT_NE(spec.set, nullptr) << spec.name;
    Request request;
    auto done = spec.set(request, sample(spec), true);
    ASSERT_TRUE(done) << spec.name << ": " << done.error().line();
    if (spec.name == "exec-cmd") continue;  // filled from the words after the options
    auto expected = named_fields(spec);
    expected.erase("images_dir_fd");
    if (spec.name == "ext-mount-map") {
      auto automatic = spec.set(request, "auto", true);
      ASSERT_TRUE(automatic);
    }
    EXPECT_EQ(set_fields(request.opts), expected) << spec.name;
  }
}

TEST(OptionTable, NamesAndLettersAreUnique) {
  std::set<std::string> names;
  std::set<char> letters;
  for (const auto& spec : option_table()) {
    EXPECT_TRUE(names.insert(std::string(spec.name)).second) << spec.name;
    EXPECT_TRUE(!spec.negatable || names.insert("no-" + std::string(spec.name)).second) << spec.name;
    EXPECT_TRUE(!spec.letter || letters.insert(spec.letter).second) << spec.letter;
    EXPECT_FALSE(spec.help.empty()) << spec.name;
    EXPECT_EQ(spec.metavar.empty(), spec.arg == Arg::kNone) << spec.name;
  }
}

TEST(OptionTable, OptionsOfTheSurfaceListAreAllThere) {
  static constexpr std::string_view kLong[] = {"tree",
                                               "leave-running",
                                               "leave-stopped",
                                               "restore-detached",
                                               "restore-sibling",
                                               "daemon",
                                               "exec-cmd",
                                               "shell-job",
                                               "pidfile",
                                               "timeout",
                                               "images-dir",
                                               "work-dir",
                                               "log-file",
                                               "log-pid",
                                               "verbosity",
                                               "display-stats",
                                               "stream",
                                               "track-mem",
                                               "prev-images-dir",
                                               "auto-dedup",
                                               "pre-dump-mode",
                                               "page-server",
                                               "address",
                                               "port",
                                               "ps-socket",
                                               "lazy-pages",
                                               "status-fd",
                                               "link-remap",
                                               "ghost-limit",
                                               "evasive-devices",
                                               "force-irmap",
                                               "irmap-scan-path",
                                               "file-locks",
                                               "file-validation",
                                               "external",
                                               "inherit-fd",
                                               "ext-mount-map",
                                               "veth-pair",
                                               "enable-fs",
                                               "enable-external-sharing",
                                               "enable-external-masters",
                                               "skip-mnt",
                                               "root",
                                               "join-ns",
                                               "empty-ns",
                                               "ext-unix-sk",
                                               "close",
                                               "mntns-compat-mode",
                                               "manage-cgroups",
                                               "cgroup-root",
                                               "freeze-cgroup",
                                               "cgroup-props",
                                               "cgroup-props-file",
                                               "cgroup-dump-controller",
                                               "cgroup-yard",
                                               "tcp-established",
                                               "skip-in-flight",
                                               "tcp-close",
                                               "weak-sysctls",
                                               "network-lock",
                                               "lsm-profile",
                                               "lsm-mount-context",
                                               "cpu-cap",
                                               "action-script",
                                               "libdir",
                                               "feature",
                                               "extra",
                                               "experimental",
                                               "all",
                                               "config",
                                               "no-default-config",
                                               "deprecated",
                                               "unprivileged",
                                               "skip-file-rwx-check",
                                               "ghost-fiemap",
                                               "tls",
                                               "tls-cacert",
                                               "tls-cacrl",
                                               "tls-cert",
                                               "tls-key",
                                               "tls-no-cn-verify",
                                               "help",
                                               "version"};
  std::set<std::string_view> names;
  std::string letters;
  for (const auto& spec : option_table()) {
    names.insert(spec.name);
    if (spec.letter) letters += spec.letter;
  }
  for (const auto name : kLong) EXPECT_TRUE(names.contains(name)) << name;
  for (const char letter : std::string("dSsRthDovxVrjJlWLM"))
    EXPECT_NE(letters.find(letter), std::string::npos) << letter;
}

TEST(OptionTable, BadValuesAreRefused) {
  const std::vector<std::pair<std::string_view, std::string_view>> cases = {{"tree", "0"},
                                                                            {"tree", "-4"},
                                                                            {"tree", "12x"},
                                                                            {"tree", "99999999999"},
                                                                            {"timeout", "0"},
                                                                            {"port", "0"},
                                                                            {"port", "65536"},
                                                                            {"veth-pair", "a"},
                                                                            {"veth-pair", "=b"},
                                                                            {"ext-mount-map", ""},
                                                                            {"ext-mount-map", ":b"},
                                                                            {"manage-cgroups", "some"},
                                                                            {"inherit-fd", "4:x"},
                                                                            {"inherit-fd", "fd[x]:y"},
                                                                            {"inherit-fd", "fd[4]:"},
                                                                            {"ghost-limit", "1T"},
                                                                            {"ghost-limit", "5G"},
                                                                            {"empty-ns", "pid"},
                                                                            {"join-ns", "net"},
                                                                            {"network-lock", "none"},
                                                                            {"cpu-cap", "cpu,sse9"},
                                                                            {"verbosity", "x"},
                                                                            {"close", "2"},
                                                                            {"pre-dump-mode", "all"},
                                                                            {"file-validation", ""}};
  for (const auto& [name, value] : cases) {
    for (const auto& spec : option_table()) {
      if (spec.name != name) continue;
      Request request;
      auto done = spec.set(request, value, true);
      ASSERT_FALSE(done) << name << " accepted " << value;
      EXPECT_EQ(done.error().code(), Code::kBadOption) << name;
    }
  }
}

TEST(ParseSize, Units) {
  EXPECT_EQ(*parse_size("10"), 10u);
  EXPECT_EQ(*parse_size("10K"), 10240u);
  EXPECT_EQ(*parse_size("3M"), 3u << 20);
  EXPECT_EQ(*parse_size("1G"), 1u << 30);
  EXPECT_FALSE(parse_size(""));
  EXPECT_FALSE(parse_size("M"));
  EXPECT_FALSE(parse_size("-1"));
  EXPECT_FALSE(parse_size("99999999999999G"));
}

}  // namespace
}  // namespace stasis::cli
