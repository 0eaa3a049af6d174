// SPDX-License-Identifier: Apache-2.0
// The whole command line with a fake engine, each run in a child process.
#include "engine/cli/criu_main.h"

#include <sys/wait.h>

#include "engine/base/strings.h"
#include "tests/unit/engine/cli/doors_fixture.h"

namespace stasis::cli {
namespace {

Engine fake_engine() {
  return {[](const Options& options, Notifier& notifier) -> Result<DumpStats> {
            TRY(notifier.notify("pre-dump"));
            if (options.images_path.ends_with("refuse"))
              return fail(Error(Code::kUnsupportedFile, "pid 5 fd 3 is an eventfd").about("pid 5 fd 3"));
            DumpStats stats;
            stats.pages_written = 4242;
            return stats;
          },
          [](const Options& options, Notifier& notifier) -> Result<Restored> {
            const pid_t child = fork();
            if (child == 0) {
              usleep(options.parent == RestoreParent::kExecCmd ? 300000 : 1000);
              _exit(7);
            }
            TRY(notifier.notify("post-restore", child));
            return Restored{child, {}};
          },
          [] {
            return std::vector<KernelFeature>{{"clone3_set_tid", "exact pids", true, true}};
          }};
}

struct Ran {
  int status = -1;
  std::string out;
};

class CriuMain : public DoorsTest {
 protected:
  // `prepare` runs in the child before criu_main.
  Ran run(std::vector<std::string> args, void (*prepare)() = nullptr) {
    args.insert(args.begin(), "criu");
    args.push_back("--no-default-config");
    // A "--" makes everything after it a word, so the switch must stand before the rest.
    std::rotate(args.begin() + 1, args.end() - 1, args.end());
    const pid_t child = fork();
    if (child == 0) {
      const int out = open(path("out").c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600);
      dup2(out, 1);
      dup2(out, 2);
      close(out);
      if (prepare) prepare();
      std::vector<char*> argv;
      for (auto& arg : args) argv.push_back(arg.data());
      argv.push_back(nullptr);
      const int status = criu_main(static_cast<int>(args.size()), argv.data(), fake_engine());
      fflush(stdout);
      _exit(status);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status), read("out")};
  }
};

TEST_F(CriuMain, Version) {
  const Ran ran = run({"--version"});
  EXPECT_EQ(ran.status, 0);
  EXPECT_EQ(ran.out, "Version: 4.2\n");
  EXPECT_EQ(run({"-V"}).status, 0);
}

TEST_F(CriuMain, VersionWithClosedDescriptors) {
  const Ran ran = run({"--version"}, [] { close(0), close(2); });
  EXPECT_EQ(ran.status, 0);
  EXPECT_EQ(ran.out, "Version: 4.2\n");
}

TEST_F(CriuMain, HelpAndUsage) {
  EXPECT_EQ(run({"--help"}).status, 0);
  EXPECT_NE(run({"-h"}).out.find("--cgroup-root"), std::string::npos);
  EXPECT_EQ(run({}).status, 1);
  EXPECT_EQ(run({"frobnicate"}).status, 1);
  EXPECT_EQ(run({"dump", "--frobnicate"}).status, 1);
  EXPECT_EQ(run({"swrk"}).status, 1);
  EXPECT_EQ(run({"swrk", "3", "4"}).status, 1);
  EXPECT_EQ(run({"swrk", "999"}).status, 1);
}

TEST_F(CriuMain, UnbuiltCommandsAreRefusedByName) {
  for (const auto* command : {"pre-dump", "page-server", "dedup", "lazy-pages", "cpuinfo"}) {
    const Ran ran = run({command});
    EXPECT_EQ(ran.status, 1);
    EXPECT_NE(ran.out.find("STASIS-E-UNSUPPORTED-OPTION"), std::string::npos) << ran.out;
    EXPECT_NE(ran.out.find(command), std::string::npos) << ran.out;
  }
  EXPECT_NE(run({"dump", "--stream"}).out.find("--stream is not built yet"), std::string::npos);
}

TEST_F(CriuMain, Check) {
  EXPECT_EQ(run({"check"}).out, "Looks good.\n");
  EXPECT_EQ(run({"check", "--feature", "clone3_set_tid"}).status, 0);
  EXPECT_EQ(run({"check", "--feature", "mem_dirty_track"}).status, 1);
  const Ran unknown = run({"check", "--feature", "telepathy"});
  EXPECT_EQ(unknown.status, 1);
  EXPECT_NE(unknown.out.find("telepathy"), std::string::npos);
  EXPECT_NE(run({"check", "--feature", "list"}).out.find("uffd-noncoop"), std::string::npos);
}

TEST_F(CriuMain, DumpWritesLogAndStatistics) {
  make_dir("img");
  make_dir("work");
  const Ran ran = run({"dump", "-t", cat(getppid()), "-D", path("img"), "-W", path("work"), "-o", "dump.log", "-v4",
                       "--display-stats"});
  EXPECT_EQ(ran.status, 0) << ran.out;
  EXPECT_NE(ran.out.find("Memory pages written: 4242"), std::string::npos) << ran.out;
  EXPECT_NE(read("work/dump.log").find("Dumping finished successfully"), std::string::npos);
  EXPECT_TRUE(exists("work/stats-dump"));
  EXPECT_FALSE(exists("img/dump.log"));
}

TEST_F(CriuMain, LogPathRelativeToWhereWeStandOrToTheWorkDirectory) {
  make_dir("img");
  make_dir("img/sub");
  ASSERT_EQ(chdir(dir_.c_str()), 0);
  EXPECT_EQ(run({"dump", "-t", cat(getppid()), "-D", "img", "-o", "img/dump.log"}).status, 0);
  EXPECT_TRUE(exists("img/dump.log"));
  EXPECT_EQ(run({"dump", "-t", cat(getppid()), "-D", "img", "-o", "sub/dump.log"}).status, 0);
  EXPECT_TRUE(exists("img/sub/dump.log"));
}

TEST_F(CriuMain, LogFileThatIsALinkIsNotFollowed) {
  make_dir("img");
  write("victim", "precious");
  ASSERT_EQ(symlink(path("victim").c_str(), path("img/restore.log").c_str()), 0);
  EXPECT_EQ(run({"restore", "-D", path("img"), "-o", "restore.log"}).status, 1);
  EXPECT_EQ(read("victim"), "precious");
}

TEST_F(CriuMain, ErrorsGoToTheLogAndToStandardError) {
  make_dir("refuse");
  const Ran ran = run({"dump", "-t", cat(getppid()), "-D", path("refuse"), "-o", "dump.log"});
  EXPECT_EQ(ran.status, 1);
  EXPECT_NE(ran.out.find("Error (STASIS-E-UNSUPPORTED-FILE): pid 5 fd 3 is an eventfd"), std::string::npos) << ran.out;
  EXPECT_NE(ran.out.find("remedy:"), std::string::npos);
  EXPECT_NE(read("refuse/dump.log").find("STASIS-E-UNSUPPORTED-FILE"), std::string::npos);
  // With the log on standard error it is said once.
  const Ran once = run({"dump", "-t", cat(getppid()), "-D", path("refuse")});
  EXPECT_EQ(once.out.find("eventfd"), once.out.rfind("eventfd")) << once.out;
}

TEST_F(CriuMain, RestoreWaitsAndReturnsTheRootsStatus) {
  make_dir("img");
  EXPECT_EQ(run({"restore", "-D", path("img"), "-o", "log"}).status, 7);
  EXPECT_TRUE(exists("img/stats-restore"));
}

TEST_F(CriuMain, RestoreDetachedExitsWithZeroAndKeepsThePidfile) {
  make_dir("img");
  EXPECT_EQ(run({"restore", "-D", path("img"), "-d", "-o", "log", "--pidfile", "pid"}).status, 0);
  EXPECT_FALSE(read("img/pid").empty());
  EXPECT_EQ(run({"restore", "-D", path("img"), "-d", "-o", "log", "--pidfile", "pid"}).status, 1);
}

TEST_F(CriuMain, ExecCmdBecomesTheParent) {
  make_dir("img");
  const Ran ran = run({"restore", "-D", path("img"), "-o", "log", "--exec-cmd", "--", "/bin/sh", "-c",
                       "echo children: $(cat /proc/$$/task/$$/children); "
                       "echo fds: $(ls /proc/$$/fd | tr '\\n' ' '); exit 5"});
  EXPECT_EQ(ran.status, 5) << ran.out;
  EXPECT_NE(ran.out.find("children: "), std::string::npos);
  EXPECT_EQ(ran.out.find("children: \n"), std::string::npos) << "the restored root must be a child\n" << ran.out;
  EXPECT_EQ(ran.out.find(" 3 4 "), std::string::npos) << ran.out;
}

TEST_F(CriuMain, ExecCmdRules) {
  make_dir("img");
  const std::string dir = path("img");
  EXPECT_NE(run({"restore", "-D", dir, "--exec-cmd"}).out.find("needs a command"), std::string::npos);
  EXPECT_NE(run({"restore", "-D", dir, "-d", "--exec-cmd", "--", "true"}).out.find("together"), std::string::npos);
  EXPECT_NE(run({"dump", "-t1", "-D", dir, "--exec-cmd", "--", "true"}).out.find("restore only"), std::string::npos);
  EXPECT_NE(run({"restore", "-D", dir, "--exec-cmd", "--", "/none"}).out.find("STASIS-E-BAD-SUPERVISOR"),
            std::string::npos);
}

TEST_F(CriuMain, ConfigFileUnderTheCommandLine) {
  make_dir("img");
  const std::string config = write("conf", "log-file config.log\nimages-dir " + path("img") + "\n");
  EXPECT_EQ(run({"dump", "-t", cat(getppid()), "--config", config}).status, 0);
  EXPECT_TRUE(exists("img/config.log"));
  EXPECT_EQ(run({"dump", "-t", cat(getppid()), "--config", config, "-o", "line.log"}).status, 0);
  EXPECT_TRUE(exists("img/line.log"));
  EXPECT_NE(run({"dump", "-t1", "--config", path("none")}).out.find("does not exist"), std::string::npos);
}

TEST_F(CriuMain, BlockedSignalsAndClosedInputDoNotMatter) {
  make_dir("img");
  EXPECT_EQ(run({"restore", "-D", path("img"), "-o", "log"},
                [] {
                  sigset_t all;
                  sigfillset(&all);
                  sigprocmask(SIG_SETMASK, &all, nullptr);
                  signal(SIGCHLD, SIG_IGN);
                  close(0);
                })
                .status,
            7);
}

}  // namespace
}  // namespace stasis::cli
