// SPDX-License-Identifier: Apache-2.0
// The server over a socket pair with a fake engine. Requests and acknowledgements are queued before it runs.
#include "engine/rpc/server.h"

#include <sys/socket.h>

#include "engine/rpc/notifier.h"
#include "engine/rpc/responses.h"
#include "engine/rpc/wire.h"
#include "tests/unit/engine/cli/doors_fixture.h"

namespace stasis::rpc {
namespace {

class Server : public cli::DoorsTest {
 protected:
  void SetUp() override {
    DoorsTest::SetUp();
    int pair[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    client_ = Fd(pair[0]);
    server_ = Fd(pair[1]);
    timeval limit{5, 0};  // a test that hangs must fail
    setsockopt(client_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    setsockopt(server_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    images_ = open_dir(make_dir("img"));
    engine_.checkpoint = [this](const Options& options, Notifier& notifier) -> Result<DumpStats> {
      calls_ += "checkpoint;";
      pid_ = options.pid;
      for (const auto* script : {"pre-dump", "network-lock", "query-ext-files", "post-dump"}) {
        auto done = notifier.notify(script);
        if (!done) {
          calls_ += "rolled back;";
          return fail(done.error());
        }
      }
      return DumpStats{};
    };
    engine_.restore = [this](const Options& options, Notifier& notifier) -> Result<Restored> {
      calls_ += "restore;";
      parent_ = options.parent;
      TRY(notifier.notify("setup-namespaces", 4711));
      if (options.orphan_pts_master) TRY(notifier.notify("orphan-pts-master", 0, 0));
      TRY(notifier.notify("post-restore", 4711));
      TRY(notifier.notify("post-resume"));
      return Restored{4711, {}};
    };
    engine_.features = [this] { return std::vector<KernelFeature>{{"thing", "a thing", true, fit_}}; };
  }

  void send_raw(const std::string& bytes) {
    ASSERT_EQ(::send(client_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }
  void send(const pb::criu_req& request) { send_raw(request.SerializePartialAsString()); }
  void ask(pb::criu_req_type type, bool keep_open = false) {
    pb::criu_req request;
    request.set_type(type);
    if (keep_open) request.set_keep_open(true);
    send(request);
  }
  void acknowledge(int times) {
    for (int i = 0; i < times; ++i) send_raw(std::string("\x08\x06\x18\x01", 4));
  }

  pb::criu_req operation(pb::criu_req_type type) {
    pb::criu_req request;
    request.set_type(type);
    request.mutable_opts()->set_images_dir_fd(images_.get());
    request.mutable_opts()->set_log_file("engine.log");
    request.mutable_opts()->set_log_level(4);
    if (type == pb::DUMP) request.mutable_opts()->set_pid(getppid());
    return request;
  }

  Outcome serve_now() { return serve(std::move(server_), defaults_, engine_); }

  // The next answer; type EMPTY with success when there is none.
  pb::criu_resp answer() {
    pb::criu_resp response;
    char buffer[8192], control[64];
    iovec part{buffer, sizeof(buffer)};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    const ssize_t n = recvmsg(client_.get(), &message, MSG_DONTWAIT);
    passed_.reset();
    if (const cmsghdr* header = n > 0 ? CMSG_FIRSTHDR(&message) : nullptr; header) {
      int fd = -1;
      memcpy(&fd, CMSG_DATA(header), sizeof(fd));
      passed_ = Fd(fd);
    }
    if (n <= 0 || !response.ParseFromArray(buffer, static_cast<int>(n))) {
      response.set_type(pb::EMPTY);
      response.set_success(true);
    }
    return response;
  }

  Fd client_, server_, images_, passed_;
  cli::Engine engine_;
  Result<cli::Request> defaults_ = cli::Request();
  std::string calls_;
  pid_t pid_ = 0;
  RestoreParent parent_ = RestoreParent::kWait;
  bool fit_ = true;
};

TEST_F(Server, VersionIgnoresHalfFilledOptions) {
  pb::criu_req request;
  request.set_type(pb::VERSION);
  request.mutable_opts()->set_images_dir_fd(0);
  request.mutable_opts()->set_work_dir_fd(9999);
  request.mutable_opts()->set_lazy_pages(true);
  send(request);
  EXPECT_EQ(serve_now().status, 0);
  const auto response = answer();
  EXPECT_EQ(response.type(), pb::VERSION);
  EXPECT_TRUE(response.success());
  EXPECT_EQ(response.version().major_number(), 4);
  EXPECT_EQ(response.version().minor_number(), 2);
  EXPECT_FALSE(response.version().has_gitid()) << "clients add one for it";
}

TEST_F(Server, TwoByteVersionRequest) {
  send_raw("\x08\x0a");
  EXPECT_EQ(serve_now().status, 0);
  EXPECT_TRUE(answer().success());
}

TEST_F(Server, FeatureCheckAlwaysHasAllFeatures) {
  ask(pb::FEATURE_CHECK);
  EXPECT_EQ(serve_now().status, 0);
  const auto response = answer();
  ASSERT_TRUE(response.has_features());
  EXPECT_TRUE(response.features().has_mem_track());
  EXPECT_TRUE(response.features().has_lazy_pages());
  EXPECT_TRUE(response.features().has_pidfd_store());
  EXPECT_FALSE(response.features().mem_track());
}

TEST_F(Server, KeepOpenQuestions) {
  ask(pb::VERSION, true);
  ask(pb::FEATURE_CHECK, true);
  ask(pb::CHECK);
  EXPECT_EQ(serve_now().status, 0);
  EXPECT_EQ(answer().type(), pb::VERSION);
  EXPECT_EQ(answer().type(), pb::FEATURE_CHECK);
  EXPECT_EQ(answer().type(), pb::CHECK);
}

TEST_F(Server, KeepOpenThenTheEnd) {
  ask(pb::VERSION, true);
  shutdown(client_.get(), SHUT_WR);
  EXPECT_EQ(serve_now().status, 0);
}

TEST_F(Server, CheckNamesWhatIsMissing) {
  fit_ = false;
  ask(pb::CHECK);
  EXPECT_EQ(serve_now().status, 1);
  const auto response = answer();
  EXPECT_EQ(response.type(), pb::CHECK);
  EXPECT_FALSE(response.success());
  EXPECT_NE(response.cr_errmsg().find("thing"), std::string::npos);
}

TEST_F(Server, Dump) {
  auto request = operation(pb::DUMP);
  request.mutable_opts()->set_notify_scripts(true);
  send(request);
  acknowledge(4);
  EXPECT_EQ(serve_now().status, 0);
  for (const auto* script : {"pre-dump", "network-lock", "query-ext-files", "post-dump"}) {
    const auto notify = answer();
    EXPECT_EQ(notify.type(), pb::NOTIFY);
    EXPECT_TRUE(notify.success());
    EXPECT_EQ(notify.notify().script(), script);
    EXPECT_FALSE(notify.notify().has_pid());
  }
  const auto response = answer();
  EXPECT_EQ(response.type(), pb::DUMP);
  EXPECT_TRUE(response.success());
  ASSERT_TRUE(response.has_dump()) << "libcriu dereferences it";
  EXPECT_TRUE(response.dump().has_restored());
  EXPECT_FALSE(response.dump().restored());
  EXPECT_EQ(pid_, getppid());
  EXPECT_TRUE(exists("img/stats-dump"));
  EXPECT_NE(read("img/engine.log").find("Dumping finished successfully"), std::string::npos);
}

TEST_F(Server, NoNotificationUnlessAskedFor) {
  send(operation(pb::DUMP));
  EXPECT_EQ(serve_now().status, 0);
  EXPECT_EQ(answer().type(), pb::DUMP);
}

TEST_F(Server, WorkDirectoryGetsLogAndStatistics) {
  const Fd work = open_dir(make_dir("work"));
  auto request = operation(pb::DUMP);
  request.mutable_opts()->set_work_dir_fd(work.get());
  request.mutable_opts()->clear_log_file();
  send(request);
  EXPECT_EQ(serve_now().status, 0);
  EXPECT_TRUE(exists("work/criu.log"));
  EXPECT_TRUE(exists("work/stats-dump"));
  EXPECT_FALSE(exists("img/stats-dump"));
}

TEST_F(Server, RefusedNotificationRollsBack) {
  auto request = operation(pb::DUMP);
  request.mutable_opts()->set_notify_scripts(true);
  send(request);
  acknowledge(1);
  send_raw(std::string("\x08\x06\x18\x00", 4));
  EXPECT_EQ(serve_now().status, 1);
  EXPECT_EQ(calls_, "checkpoint;rolled back;");
  EXPECT_EQ(answer().notify().script(), "pre-dump");
  EXPECT_EQ(answer().notify().script(), "network-lock");
  const auto response = answer();
  EXPECT_EQ(response.type(), pb::DUMP);
  EXPECT_FALSE(response.success());
  EXPECT_TRUE(response.cr_errmsg().starts_with("STASIS-E-HOOK-FAILED: ")) << response.cr_errmsg();
}

TEST_F(Server, ClientGoneDuringANotificationRollsBack) {
  auto request = operation(pb::DUMP);
  request.mutable_opts()->set_notify_scripts(true);
  send(request);
  acknowledge(2);
  client_.reset();
  EXPECT_EQ(serve_now().status, 1);
  EXPECT_EQ(calls_, "checkpoint;rolled back;");
}

TEST_F(Server, AnotherRequestInsteadOfAnAcknowledgementRollsBack) {
  auto request = operation(pb::DUMP);
  request.mutable_opts()->set_notify_scripts(true);
  send(request);
  ask(pb::VERSION);
  EXPECT_EQ(serve_now().status, 1);
  EXPECT_EQ(calls_, "checkpoint;rolled back;");
}

TEST_F(Server, Restore) {
  auto request = operation(pb::RESTORE);
  request.mutable_opts()->set_notify_scripts(true);
  request.mutable_opts()->set_rst_sibling(true);
  request.mutable_opts()->set_orphan_pts_master(true);
  send(request);
  acknowledge(4);
  const Outcome outcome = serve_now();
  EXPECT_EQ(outcome.status, 0);
  EXPECT_TRUE(outcome.exec_cmd.empty());
  auto notify = answer();
  EXPECT_EQ(notify.notify().script(), "setup-namespaces");
  EXPECT_EQ(notify.notify().pid(), 4711);
  notify = answer();
  EXPECT_EQ(notify.notify().script(), "orphan-pts-master");
  EXPECT_TRUE(passed_) << "runc panics without the descriptor";
  notify = answer();
  EXPECT_EQ(notify.notify().script(), "post-restore");
  EXPECT_EQ(notify.notify().pid(), 4711);
  EXPECT_FALSE(passed_);
  EXPECT_EQ(answer().notify().script(), "post-resume");
  const auto response = answer();
  EXPECT_EQ(response.type(), pb::RESTORE);
  EXPECT_TRUE(response.success());
  EXPECT_EQ(response.restore().pid(), 4711);
  EXPECT_EQ(parent_, RestoreParent::kSibling);
  EXPECT_TRUE(exists("img/stats-restore"));
}

TEST_F(Server, RefusalOfPostResumeDoesNotUndoARestore) {
  auto request = operation(pb::RESTORE);
  request.mutable_opts()->set_notify_scripts(true);
  send(request);
  acknowledge(2);
  send_raw(std::string("\x08\x06\x18\x00", 4));
  EXPECT_EQ(serve_now().status, 0);
}

TEST_F(Server, TerminalWithoutNotificationsFails) {
  auto request = operation(pb::RESTORE);
  request.mutable_opts()->set_orphan_pts_master(true);
  send(request);
  EXPECT_EQ(serve_now().status, 1);
  EXPECT_FALSE(answer().success());
}

TEST_F(Server, ExecCmdIsLeftToTheCaller) {
  auto request = operation(pb::RESTORE);
  request.mutable_opts()->add_exec_cmd("sh");
  request.mutable_opts()->add_exec_cmd("-c");
  send(request);
  const Outcome outcome = serve_now();
  EXPECT_EQ(outcome.exec_cmd, (std::vector<std::string>{"sh", "-c"}));
  EXPECT_TRUE(outcome.log);
  EXPECT_EQ(parent_, RestoreParent::kExecCmd);
  EXPECT_TRUE(answer().success()) << "the answer comes before the exec";
}

TEST_F(Server, UnbuiltRequestsGetTypedAnswers) {
  for (const auto type : {pb::PRE_DUMP, pb::SINGLE_PRE_DUMP, pb::PAGE_SERVER, pb::PAGE_SERVER_CHLD, pb::CPUINFO_DUMP,
                          pb::CPUINFO_CHECK, pb::WAIT_PID})
    ask(type, true);
  shutdown(client_.get(), SHUT_WR);
  EXPECT_EQ(serve_now().status, 1);
  for (const auto type : {pb::PRE_DUMP, pb::SINGLE_PRE_DUMP, pb::PAGE_SERVER, pb::PAGE_SERVER_CHLD, pb::CPUINFO_DUMP,
                          pb::CPUINFO_CHECK, pb::WAIT_PID}) {
    const auto response = answer();
    EXPECT_EQ(response.type(), type);
    EXPECT_FALSE(response.success());
    EXPECT_EQ(response.cr_errno(), ENOTSUP);
    EXPECT_NE(response.cr_errmsg().find(pb::criu_req_type_Name(type)), std::string::npos);
  }
}

TEST_F(Server, GarbageAndUnknownTypes) {
  for (const std::string& record : {std::string("\xff\xff\xff"), std::string("\x08\x63"), std::string("\x10\x01"),
                                    std::string("\x08\x00", 2), std::string("\x08\x06")}) {
    int pair[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    client_ = Fd(pair[0]);
    server_ = Fd(pair[1]);
    send_raw(record);
    EXPECT_EQ(serve_now().status, 1);
    const auto response = answer();
    EXPECT_EQ(response.type(), pb::EMPTY);
    EXPECT_FALSE(response.success());
    EXPECT_EQ(response.cr_errno(), EBADRQC);
  }
}

TEST_F(Server, UnknownFieldsAreSkipped) {
  auto request = operation(pb::DUMP);
  std::string bytes = request.SerializePartialAsString();
  bytes += std::string("\xb8\x3e\x01", 3);  // field 999 of the request
  send_raw(bytes);
  EXPECT_EQ(serve_now().status, 0);
}

TEST_F(Server, LargeRequestIsReadAndAnOversizeOneRefused) {
  auto request = operation(pb::DUMP);
  for (int i = 0; i < 1500; ++i) {
    auto* map = request.mutable_opts()->add_ext_mnt();
    map->set_key("/some/mount/point/of/the/container");
    map->set_val("name");
  }
  ASSERT_GT(request.SerializePartialAsString().size(), 65536u);
  send(request);
  EXPECT_EQ(serve_now().status, 0);
  EXPECT_TRUE(answer().success());
}

TEST_F(Server, NothingAsked) {
  shutdown(client_.get(), SHUT_WR);
  EXPECT_EQ(serve_now().status, 1);
  EXPECT_EQ(answer().type(), pb::EMPTY);
}

TEST_F(Server, BadOptionsAreAnsweredWithTheOperationsType) {
  auto request = operation(pb::DUMP);
  request.mutable_opts()->set_log_file("../evil.log");
  send(request);
  EXPECT_EQ(serve_now().status, 1);
  const auto response = answer();
  EXPECT_EQ(response.type(), pb::DUMP);
  EXPECT_FALSE(response.success());
  EXPECT_EQ(response.cr_errno(), EBADRQC);
  EXPECT_FALSE(exists("evil.log"));
  EXPECT_EQ(calls_, "");
}

TEST_F(Server, ImagesDirectoryThatIsNotOne) {
  auto request = operation(pb::RESTORE);
  request.mutable_opts()->set_images_dir_fd(9999);
  send(request);
  EXPECT_EQ(serve_now().status, 1);
  EXPECT_EQ(answer().cr_errno(), ENOENT);
}

TEST_F(Server, ConfigFileOfTheRequestWins) {
  auto request = operation(pb::DUMP);
  request.mutable_opts()->set_config_file(write("runc.conf", "log-file config.log\nwork-dir " + dir_ + "\n"));
  request.mutable_opts()->set_work_dir_fd(images_.get());
  send(request);
  EXPECT_EQ(serve_now().status, 0);
  EXPECT_TRUE(exists("config.log"));
  EXPECT_FALSE(exists("img/engine.log"));
}

TEST_F(Server, MissingConfigFileIsIgnoredAndABadOneAnswered) {
  auto request = operation(pb::DUMP);
  request.mutable_opts()->set_config_file(path("none.conf"));
  send(request);
  EXPECT_EQ(serve_now().status, 0);

  const auto opts = effective_options({}, [&] {
    pb::criu_opts bad;
    bad.set_config_file(write("bad.conf", "nonsense\n"));
    return bad;
  }());
  ASSERT_FALSE(opts);
  EXPECT_NE(opts.error().message().find("bad.conf:1"), std::string::npos);
}

TEST_F(Server, BrokenDefaultConfigIsAnAnswerNotABrokenPipe) {
  defaults_ = fail(Code::kBadOption, "default.conf:3: unknown option");
  ask(pb::VERSION, true);
  send(operation(pb::DUMP));
  EXPECT_EQ(serve_now().status, 1);
  EXPECT_TRUE(answer().success());
  const auto response = answer();
  EXPECT_EQ(response.type(), pb::DUMP);
  EXPECT_NE(response.cr_errmsg().find("default.conf:3"), std::string::npos);
}

TEST_F(Server, NotASeqpacketSocket) {
  int pair[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
  const Fd other(pair[0]);
  log::open(images_.get(), log::Level::kError);
  EXPECT_EQ(serve(Fd(pair[1]), defaults_, engine_).status, 1);
}

TEST(EffectiveOptions, DescriptorsAndPathsOverrideEachOther) {
  pb::criu_opts defaults, request;
  defaults.set_images_dir("/default");
  defaults.set_stasis_work_dir("/default-work");
  defaults.set_log_file("default.log");
  request.set_images_dir_fd(5);
  request.set_work_dir_fd(6);
  const auto merged = effective_options(defaults, request);
  ASSERT_TRUE(merged);
  EXPECT_EQ(merged->images_dir_fd(), 5);
  EXPECT_FALSE(merged->has_images_dir());
  EXPECT_EQ(merged->work_dir_fd(), 6);
  EXPECT_FALSE(merged->has_stasis_work_dir());
  EXPECT_EQ(merged->log_file(), "default.log");
  request.Clear();
  request.set_images_dir_fd(-1);
  EXPECT_EQ(effective_options(defaults, request)->images_dir(), "/default");
}

}  // namespace
}  // namespace stasis::rpc
