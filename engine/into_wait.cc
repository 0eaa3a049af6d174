// SPDX-License-Identifier: Apache-2.0
// The other side of into.cc, in the first process of the runtime's container. It reads the same images, so it comes
// to the same plan as the engine; what only the engine can choose is in its orders.
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include <cerrno>
#include <cstring>

#include "engine/base/io.h"
#include "engine/into.h"
#include "engine/into_message.h"
#include "engine/memory/premap.h"

namespace stasis::into {
namespace {

// A hook of the runtime may make the socket only after we have been started.
constexpr timespec kPause{0, 5'000'000};
constexpr time_t kPatience = 60;  // seconds

Result<Fd> connect_to(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return fail(Code::kBadOption, "the socket's path is too long");
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  Fd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!socket) return fail_sys("socket");
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  const time_t end = now.tv_sec + kPatience;
  while (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0) {
    clock_gettime(CLOCK_MONOTONIC, &now);
    if ((errno != ENOENT && errno != ECONNREFUSED) || now.tv_sec >= end) return fail_sys("connect", path);
    nanosleep(&kPause, nullptr);
  }
  return socket;
}

// With the plan made and everything open: only what fails before says so here.
Result<void> become(Received& received, const tasks::SharedArena& shared) {
  Options options;
  options.inherit_fds = received.inherit;
  const auto images = TRY(image::Reader::open(received.images.get()));
  const auto snapshot = TRY(tasks::load(images));
  const auto plan = TRY(tasks::plan_tree(snapshot, false));
  if (plan.nodes.size() != received.orders.nodes)
    return fail(Code::kInternal, cat("a plan of ", plan.nodes.size(), " tasks instead of ", received.orders.nodes));
  tasks::StubEnv env{
      .snapshot = snapshot, .plan = plan, .options = options, .shared = shared, .ground = nullptr, .adopted = true};
  env.pool = tasks::make_pool(snapshot, received.orders.pool_base);
  std::vector<memory::Premap> premaps;
  if (received.orders.taken_count > 0) {
    premaps = memory::plan_premap(snapshot, plan, get_taken(received.orders));
    env.premaps = &premaps;
  }
  env.set_up_namespaces = []() -> Result<void> { return {}; };  // done by the engine
  auto files_env = tasks::files_env(snapshot, options, env.pool, received.proc.get());
  tasks::give_files(env, files_env);
  tasks::become_root_stub(env, received.go.get(), received.report.get(), received.proc.get());
}

}  // namespace

Error wait_to_become_root(const std::string& socket_path) {
  auto socket = connect_to(socket_path);
  if (!socket) return std::move(socket).error();
  auto received = receive_orders(socket->get());
  if (!received) return std::move(received).error();
  // At once, before more memory is taken: the engine chose the place by what is mapped now.
  auto shared = tasks::SharedArena::attach(received->arena.get(), received->orders.hole, received->orders.nodes);
  if (!shared) return std::move(shared).error();
  if (received->log) log::open(received->log.get(), static_cast<log::Level>(received->orders.log_level));
  auto never = become(*received, *shared);
  tasks::fail_root_stub(*shared, never ? Error(Code::kInternal, "the root stub ended") : never.error(),
                        received->report.get());
}

}  // namespace stasis::into
