// SPDX-License-Identifier: Apache-2.0
#include "engine/cli/notifiers.h"

#include "tests/unit/engine/cli/doors_fixture.h"

namespace stasis::cli {
namespace {

class Notifiers : public DoorsTest {
 protected:
  void SetUp() override {
    DoorsTest::SetUp();
    options_.images_dir = open_dir(dir_);
    log_ = Fd(open(path("log").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
    log::open(log_.get(), log::Level::kWarning);
  }
  void script(const std::string& text) { options_.action_script = write("script", "#!/bin/sh\n" + text, 0755); }
  Options options_;
  Fd log_;
};

TEST_F(Notifiers, ScriptSeesItsEnvironment) {
  script("echo \"$CRTOOLS_SCRIPT_ACTION [$CRTOOLS_INIT_PID] $(ls $CRTOOLS_IMAGE_DIR/script)\"\ncat\n");
  setenv("CRTOOLS_INIT_PID", "999", 1);  // must not leak in from outside
  ScriptNotifier notifier(options_);
  auto done = notifier.notify("pre-restore");
  ASSERT_TRUE(done) << done.error().line();
  ASSERT_TRUE(notifier.notify("setup-namespaces", 42));
  ASSERT_TRUE(notifier.notify("post-restore"));
  unsetenv("CRTOOLS_INIT_PID");
  const std::string output = read("log");
  EXPECT_NE(output.find("pre-restore [] "), std::string::npos) << output;
  EXPECT_NE(output.find("setup-namespaces [42] /proc/"), std::string::npos) << output;
  EXPECT_NE(output.find("post-restore [42] "), std::string::npos) << output;
}

TEST_F(Notifiers, ScriptKnowsThePidOfADump) {
  script("echo \"pid $CRTOOLS_INIT_PID\"");
  options_.pid = 17;
  ASSERT_TRUE(ScriptNotifier(options_).notify("pre-dump"));
  EXPECT_EQ(read("log"), "pid 17\n");
}

TEST_F(Notifiers, ScriptGetsNoDescriptorsAndNoBlockedSignals) {
  script("ls /proc/self/fd | wc -l\ngrep SigBlk /proc/self/status");
  const Fd extra(open("/dev/null", O_RDONLY));  // not CLOEXEC on purpose
  sigset_t all, before;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, &before);
  auto done = ScriptNotifier(options_).notify("pre-dump");
  sigprocmask(SIG_SETMASK, &before, nullptr);
  ASSERT_TRUE(done) << done.error().line();
  const std::string output = read("log");
  EXPECT_NE(output.find("4\n"), std::string::npos) << output;  // 0 1 2 and the directory ls reads
  EXPECT_NE(output.find("SigBlk:\t0000000000000000"), std::string::npos) << output;
}

TEST_F(Notifiers, FailureOfTheScript) {
  script("exit 3");
  ScriptNotifier notifier(options_);
  auto done = notifier.notify("post-dump");
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code(), Code::kHookFailed);
  EXPECT_NE(done.error().message().find("exit status 3"), std::string::npos);
  EXPECT_TRUE(notifier.notify("network-unlock"));
  EXPECT_NE(read("log").find("ignoring"), std::string::npos);
  script("kill -9 $$");
  EXPECT_NE(notifier.notify("post-dump").error().message().find("signal 9"), std::string::npos);
  options_.action_script = path("none");
  EXPECT_EQ(notifier.notify("post-dump").error().sys_errno(), ENOENT);
}

TEST_F(Notifiers, QuestionsForAClientDoNotRunTheScript) {
  script("echo ran");
  ScriptNotifier notifier(options_);
  ASSERT_TRUE(notifier.notify("orphan-pts-master", 0, 1));
  ASSERT_TRUE(notifier.notify("query-ext-files"));
  EXPECT_EQ(read("log"), "");
}

TEST_F(Notifiers, PidfileHoldsThePidBeforeTheTasksRun) {
  {
    auto pidfile = PidfileNotifier::create(path("pid"));
    ASSERT_TRUE(pidfile);
    EXPECT_EQ(read("pid"), "");
    ASSERT_TRUE(pidfile->notify("setup-namespaces", 41));
    EXPECT_EQ(read("pid"), "");
    ASSERT_TRUE(pidfile->notify("post-restore", 42));
    EXPECT_EQ(read("pid"), "42") << "decimal, no newline";
    ASSERT_TRUE(pidfile->write(42));
    EXPECT_EQ(read("pid"), "42");
    pidfile->keep();
  }
  EXPECT_TRUE(exists("pid"));
  struct stat st {};
  ASSERT_EQ(stat(path("pid").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600u);
}

TEST_F(Notifiers, PidfileOfAFailedRestoreIsRemoved) {
  {
    auto pidfile = PidfileNotifier::create(path("pid"));
    ASSERT_TRUE(pidfile);
    ASSERT_TRUE(pidfile->notify("post-restore", 42));
  }
  EXPECT_FALSE(exists("pid"));
  write("pid", "old");
  EXPECT_EQ(PidfileNotifier::create(path("pid")).error().sys_errno(), EEXIST);
  EXPECT_EQ(read("pid"), "old");
}

class Recorder : public Notifier {
 public:
  explicit Recorder(std::string& calls, bool fails = false) : calls_(calls), fails_(fails) {}
  Result<void> notify(std::string_view script, pid_t, int) override {
    calls_ += cat(script, ";");
    if (fails_) return fail(Code::kHookFailed, "no");
    return {};
  }

 private:
  std::string& calls_;
  bool fails_;
};

TEST_F(Notifiers, ListStopsAtTheFirstFailure) {
  std::string first, second, third;
  Recorder a(first), b(second, true), c(third);
  NotifierList list;
  ASSERT_TRUE(list.notify("pre-dump"));
  list.add(a);
  list.add(b);
  list.add(c);
  EXPECT_FALSE(list.notify("pre-dump"));
  EXPECT_EQ(first, "pre-dump;");
  EXPECT_EQ(second, "pre-dump;");
  EXPECT_EQ(third, "");
}

}  // namespace
}  // namespace stasis::cli
