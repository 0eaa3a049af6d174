// SPDX-License-Identifier: Apache-2.0
#include "engine/cli/validate.h"

#include <sys/wait.h>

#include "tests/unit/engine/cli/doors_fixture.h"

namespace stasis::cli {
namespace {

class Validate : public DoorsTest {
 protected:
  void SetUp() override {
    DoorsTest::SetUp();
    opts_.set_images_dir_fd(-1);
    opts_.set_images_dir(make_dir("img"));
  }
  Error error_of(Action action, Door door = Door::kCriu) {
    auto options = validate(opts_, {.action = action, .door = door, .peer = getpid()});
    EXPECT_FALSE(options);
    return options ? Error(Code::kInternal, "no error") : options.error();
  }
  pb::criu_opts opts_;
};

bool same_directory(int fd, const std::string& path) {
  struct stat a {
  }, b{};
  return fstat(fd, &a) == 0 && stat(path.c_str(), &b) == 0 && a.st_ino == b.st_ino && a.st_dev == b.st_dev;
}

TEST_F(Validate, DirectoriesByPath) {
  auto options = validate(opts_, {.action = Action::kRestore, .door = Door::kCriu});
  ASSERT_TRUE(options) << options.error().line();
  EXPECT_TRUE(same_directory(options->images_dir.get(), path("img")));
  EXPECT_TRUE(same_directory(options->work_dir.get(), path("img")));
  opts_.set_stasis_work_dir(make_dir("work"));
  auto with_work = validate(opts_, {.action = Action::kRestore, .door = Door::kCriu});
  ASSERT_TRUE(with_work);
  EXPECT_TRUE(same_directory(with_work->work_dir.get(), path("work")));
}

TEST_F(Validate, DirectoriesOfTheClient) {
  const Fd images = open_dir(path("img")), work = open_dir(make_dir("work"));
  opts_.clear_images_dir();
  opts_.set_images_dir_fd(images.get());
  opts_.set_work_dir_fd(work.get());
  auto options = validate(opts_, {.action = Action::kRestore, .door = Door::kRpc, .peer = getpid()});
  ASSERT_TRUE(options) << options.error().line();
  EXPECT_TRUE(same_directory(options->images_dir.get(), path("img")));
  EXPECT_TRUE(same_directory(options->work_dir.get(), path("work")));
  EXPECT_NE(options->images_dir.get(), images.get());
  // A config file's work directory is named by path and wins.
  opts_.set_stasis_work_dir(path("img"));
  auto config = validate(opts_, {.action = Action::kRestore, .door = Door::kRpc, .peer = getpid()});
  ASSERT_TRUE(config);
  EXPECT_TRUE(same_directory(config->work_dir.get(), path("img")));
}

TEST_F(Validate, BadDirectories) {
  opts_.set_images_dir(path("none"));
  Error none = error_of(Action::kRestore);
  EXPECT_EQ(none.code(), Code::kImageDir);
  EXPECT_EQ(none.sys_errno(), ENOENT);
  opts_.set_images_dir(write("file", "x"));
  EXPECT_EQ(error_of(Action::kRestore).sys_errno(), ENOTDIR);
  opts_.clear_images_dir();
  EXPECT_EQ(error_of(Action::kRestore, Door::kStasis).code(), Code::kBadOption);
  EXPECT_EQ(error_of(Action::kRestore, Door::kRpc).code(), Code::kBadOption);
  opts_.set_images_dir_fd(9999);
  EXPECT_EQ(error_of(Action::kRestore, Door::kRpc).code(), Code::kImageDir);
  const Fd file(open(path("file").c_str(), O_RDONLY | O_CLOEXEC));
  opts_.set_images_dir_fd(file.get());
  EXPECT_EQ(error_of(Action::kRestore, Door::kRpc).code(), Code::kImageDir);
}

TEST_F(Validate, SupervisorIsLookedForBeforeAnythingHappens) {
  opts_.add_exec_cmd(path("none"));
  EXPECT_EQ(error_of(Action::kRestore).code(), Code::kBadSupervisor);
  opts_.set_exec_cmd(0, write("plain", "x", 0644));
  EXPECT_EQ(error_of(Action::kRestore).code(), Code::kBadSupervisor);
  opts_.set_exec_cmd(0, dir_);
  EXPECT_EQ(error_of(Action::kRestore).code(), Code::kBadSupervisor);
  opts_.set_exec_cmd(0, "no-such-command-anywhere");
  EXPECT_EQ(error_of(Action::kRestore).code(), Code::kBadSupervisor);
  opts_.set_exec_cmd(0, "sh");
  EXPECT_TRUE(validate(opts_, {.action = Action::kRestore, .door = Door::kCriu}));
  opts_.set_exec_cmd(0, write("script", "#!/bin/sh\n", 0755));
  EXPECT_TRUE(validate(opts_, {.action = Action::kRestore, .door = Door::kCriu}));
}

TEST_F(Validate, PidfileMustNotExist) {
  opts_.set_stasis_pidfile(write("pid", "1"));
  EXPECT_EQ(error_of(Action::kRestore).code(), Code::kBadOption);
  opts_.set_stasis_pidfile(path("new-pid"));
  EXPECT_TRUE(validate(opts_, {.action = Action::kRestore, .door = Door::kCriu}));
  EXPECT_FALSE(exists("new-pid")) << "validate changes nothing";
}

TEST_F(Validate, NewRoot) {
  opts_.set_root(path("none"));
  EXPECT_EQ(error_of(Action::kRestore).code(), Code::kMountTarget);
  opts_.set_root(write("file", "x"));
  EXPECT_EQ(error_of(Action::kRestore).code(), Code::kMountTarget);
  opts_.set_root(dir_ + "//img/../img");
  auto options = validate(opts_, {.action = Action::kRestore, .door = Door::kCriu});
  ASSERT_TRUE(options);
  EXPECT_EQ(options->root, path("img"));
}

TEST_F(Validate, InheritedDescriptorsMustBeOpen) {
  auto* inherit = opts_.add_inherit_fd();
  inherit->set_key("pipe:[1]");
  inherit->set_fd(9999);
  EXPECT_EQ(error_of(Action::kRestore).object(), "fd 9999");
  inherit->set_fd(1);
  EXPECT_TRUE(validate(opts_, {.action = Action::kRestore, .door = Door::kCriu}));
}

TEST_F(Validate, DumpNeedsALivingProcess) {
  const pid_t child = fork();
  if (child == 0) _exit(0);
  waitpid(child, nullptr, 0);
  opts_.set_pid(child);
  Error gone = error_of(Action::kDump);
  EXPECT_EQ(gone.code(), Code::kNoContainer);
  EXPECT_EQ(gone.sys_errno(), ESRCH);
}

TEST_F(Validate, FreezerAndScriptMustExist) {
  opts_.set_pid(getppid());
  opts_.set_freeze_cgroup(path("none"));
  EXPECT_EQ(error_of(Action::kDump).code(), Code::kFreezer);
  opts_.set_freeze_cgroup(write("file", ""));
  EXPECT_EQ(error_of(Action::kDump).code(), Code::kFreezer);
  opts_.clear_freeze_cgroup();
  opts_.set_stasis_action_script(path("file"));
  EXPECT_EQ(error_of(Action::kDump).code(), Code::kBadOption);
}

}  // namespace
}  // namespace stasis::cli
