// SPDX-License-Identifier: Apache-2.0
#include "engine/cli/config_file.h"

#include "tests/unit/engine/cli/doors_fixture.h"

namespace stasis::cli {
namespace {

using ConfigFile = DoorsTest;

std::string error_of(std::string_view text) {
  Request request;
  auto done = parse_config(text, "conf", request);
  return done ? "" : done.error().line();
}

TEST_F(ConfigFile, Syntax) {
  Request r;
  auto done = parse_config(
      "# a comment\n"
      "\n"
      "tcp-established   # and one behind\n"
      "  log-file=name.log\r\n"
      "work-dir \"/a b/\\\"c\\\"\"\n"
      "external \"mnt[/x]:y\"\n"
      "ext-mount-map /a:b#c\n"
      "verbosity 4\n"
      "no-file-locks\n"
      "cgroup-root=cpu:/x\n",
      "conf", r);
  ASSERT_TRUE(done) << done.error().line();
  EXPECT_TRUE(r.opts.tcp_established());
  EXPECT_EQ(r.opts.log_file(), "name.log");
  EXPECT_EQ(r.opts.stasis_work_dir(), "/a b/\"c\"");
  EXPECT_EQ(r.opts.external(0), "mnt[/x]:y");
  EXPECT_EQ(r.opts.ext_mnt(0).val(), "b#c");
  EXPECT_EQ(r.opts.log_level(), 4);
  EXPECT_TRUE(r.opts.has_file_locks());
  EXPECT_FALSE(r.opts.file_locks());
  EXPECT_EQ(r.opts.cg_root(0).path(), "/x");
}

TEST_F(ConfigFile, ErrorsNameThePlace) {
  EXPECT_NE(error_of("tcp-established\nnonsense 1\n").find("conf:2"), std::string::npos);
  EXPECT_NE(error_of("--tcp-established\n").find("without dashes"), std::string::npos);
  EXPECT_NE(error_of("log-file\n").find("needs a value"), std::string::npos);
  EXPECT_NE(error_of("tcp-established yes\n").find("takes no value"), std::string::npos);
  EXPECT_NE(error_of("log-file \"x\n").find("not closed"), std::string::npos);
  EXPECT_NE(error_of("log-file a b\n").find("too many words"), std::string::npos);
  EXPECT_NE(error_of("exec-cmd\n").find("command line only"), std::string::npos);
  EXPECT_NE(error_of("force\n").find("unknown option"), std::string::npos);
  EXPECT_NE(error_of("ghost-limit big\n").find("ghost-limit"), std::string::npos);
}

TEST_F(ConfigFile, LaterFilesOverrideAndMissingOnesDoNotMatter) {
  ConfigPlaces places;
  places.system = write("system.conf", "log-file system.log\ntcp-established\nexternal a\n");
  make_dir("home");
  make_dir("home/.criu");
  places.home = path("home");
  places.environment = path("none.conf");
  write("home/.criu/default.conf", "log-file home.log\nexternal b\n");
  Request r;
  auto done = read_default_configs(places, r);
  ASSERT_TRUE(done) << done.error().line();
  EXPECT_EQ(r.opts.log_file(), "home.log");
  EXPECT_TRUE(r.opts.tcp_established());
  ASSERT_EQ(r.opts.external_size(), 2);
  EXPECT_EQ(r.opts.external(1), "b");
}

TEST_F(ConfigFile, OnlyRegularFilesAreRead) {
  ASSERT_EQ(mkfifo(path("fifo").c_str(), 0600), 0);
  Request r;
  auto done = read_config(path("fifo"), r);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code(), Code::kBadOption);
  auto directory = read_config(dir_, r);
  EXPECT_FALSE(directory);
  auto none = read_config(path("none/none"), r);
  ASSERT_TRUE(none);
  EXPECT_FALSE(*none);
}

}  // namespace
}  // namespace stasis::cli
