// SPDX-License-Identifier: Apache-2.0
#include "engine/tasks/tree_plan.h"

#include <algorithm>
#include <map>

namespace stasis::tasks {
namespace {

class Planner {
 public:
  Planner(const std::vector<TreeInput>& input, bool outer_session) : input_(input), outer_session_(outer_session) {}

  Result<TreePlan> run() {
    for (size_t i = 0; i < input_.size(); ++i) {
      const auto& in = input_[i];
      TreeNode node{.pid = in.pid, .pgid = in.pgid, .sid = in.sid, .task = static_cast<int>(i)};
      node.leads_session = in.sid == in.pid;
      by_pid_[in.pid] = static_cast<int>(i);
      nodes_.push_back(node);
    }
    next_helper_pid_ = 300;
    for (const auto& in : input_) next_helper_pid_ = std::max({next_helper_pid_, in.pid + 1, in.sid + 1, in.pgid + 1});
    for (size_t i = 0; i < input_.size(); ++i) TRY(place(static_cast<int>(i)));
    for (size_t i = 0; i < input_.size(); ++i) TRY(place_group(static_cast<int>(i)));
    return order();
  }

 private:
  std::unexpected<Error> bad(const TreeInput& in, const char* why) {
    return fail(Error(Code::kImageCorrupt, cat("pstree.img: pid ", in.pid, " ", why)).about("pstree.img"));
  }

  // The session a node is born into.
  uint32_t born_sid(int node) const {
    const auto& n = nodes_[static_cast<size_t>(node)];
    if (n.creator < 0) return n.leads_session ? 0 : n.sid;
    return n.early ? born_sid(n.creator) : nodes_[static_cast<size_t>(n.creator)].sid;
  }

  Result<void> place(int i) {
    const auto& in = input_[static_cast<size_t>(i)];
    auto& node = nodes_[static_cast<size_t>(i)];
    if (in.ppid == 0) {
      if (!node.leads_session && !outer_session_ && (i == 0 || in.sid == 0 || !by_pid_.contains(in.sid)))
        return fail(Error(Code::kUnsupported, cat("pid ", in.pid, " is in session ", in.sid,
                                                  " of a process outside; --shell-job allows it"))
                        .about(cat("pid ", in.pid)));
      if (i != 0 && !node.leads_session) return bad(in, "entered the namespace without a session of its own");
      return {};
    }
    const auto parent_at = by_pid_.find(in.ppid);
    // Parents come first, which also rules out loops.
    if (parent_at == by_pid_.end() || parent_at->second >= i) return bad(in, "has no parent before it");
    const int p = parent_at->second;
    const auto& parent = nodes_[static_cast<size_t>(p)];
    if (node.leads_session || in.sid == parent.sid) {
      node.creator = p;
    } else if (parent.leads_session && born_sid(p) == in.sid) {
      node.creator = p;
      node.early = true;
    } else {
      node.creator = TRY(helper_in_session(in, p));
      nodes_[static_cast<size_t>(p)].adopts = true;
    }
    return {};
  }

  // A helper that is born in the session of `in` and will leave its children to `parent`.
  Result<int> helper_in_session(const TreeInput& in, int parent) {
    if (in.sid == 0) return bad(in, "is in a session of a process outside");
    const auto key = std::make_pair(in.sid, parent);
    if (const auto at = helpers_.find(key); at != helpers_.end()) return at->second;
    TreeNode helper;
    helper.sid = in.sid;
    const auto leader = by_pid_.find(in.sid);
    if (leader != by_pid_.end()) {
      // Its orphans must reach `parent` going up from the leader.
      if (!is_ancestor(parent, leader->second))
        return bad(in, "is in a session that its parent could not have adopted it from");
      helper.pid = next_helper_pid_++;
      helper.pgid = helper.pid;
      helper.creator = leader->second;
    } else {
      helper.pid = in.sid;  // the leader itself is gone: this one takes its number and dies again
      helper.pgid = in.sid;
      helper.leads_session = true;
      helper.creator = parent;
    }
    const int index = static_cast<int>(nodes_.size());
    nodes_.push_back(helper);
    if (leader == by_pid_.end()) by_pid_[helper.pid] = index;
    helpers_[key] = index;
    return index;
  }

  bool is_ancestor(int ancestor, int node) const {
    for (int at = node; at >= 0;) {
      if (at == ancestor) return true;
      const int task = nodes_[static_cast<size_t>(at)].task;
      if (task < 0) {
        at = nodes_[static_cast<size_t>(at)].creator;
        continue;
      }
      const auto up = by_pid_.find(input_[static_cast<size_t>(task)].ppid);
      at = up == by_pid_.end() ? -1 : up->second;
    }
    return false;
  }

  // A process group without its leader: a helper leads it until the others have joined.
  Result<void> place_group(int i) {
    const auto& in = input_[static_cast<size_t>(i)];
    if (in.pgid == in.pid || by_pid_.contains(in.pgid)) return {};
    if (in.pgid == 0 || (outer_session_ && nodes_[0].sid == in.sid && !nodes_[0].leads_session)) return {};
    const auto leader = by_pid_.find(in.sid);
    TreeNode helper{.pid = in.pgid, .pgid = in.pgid, .sid = in.sid};
    helper.creator = leader != by_pid_.end() ? leader->second : i;
    by_pid_[helper.pid] = static_cast<int>(nodes_.size());
    nodes_.push_back(helper);
    return {};
  }

  Result<TreePlan> order() {
    TreePlan plan;
    std::vector<int> place_of(nodes_.size(), -1), queue;
    // Breadth first from the engine's own children; what is not reached is a loop of helpers.
    for (size_t i = 0; i < nodes_.size(); ++i)
      if (nodes_[i].creator < 0) queue.push_back(static_cast<int>(i));
    for (size_t q = 0; q < queue.size(); ++q) {
      place_of[static_cast<size_t>(queue[q])] = static_cast<int>(q);
      for (size_t i = 0; i < nodes_.size(); ++i)
        if (nodes_[i].creator == queue[q]) queue.push_back(static_cast<int>(i));
    }
    if (queue.size() != nodes_.size()) return fail(Code::kImageCorrupt, "pstree.img: the tasks do not form a tree");
    for (int old : queue) {
      TreeNode node = nodes_[static_cast<size_t>(old)];
      if (node.creator >= 0) {
        node.creator = place_of[static_cast<size_t>(node.creator)];
        plan.nodes[static_cast<size_t>(node.creator)].children.push_back(static_cast<int>(plan.nodes.size()));
      } else if (!plan.nodes.empty()) {
        plan.extra_roots.push_back(static_cast<int>(plan.nodes.size()));
      }
      plan.nodes.push_back(std::move(node));
    }
    return plan;
  }

  const std::vector<TreeInput>& input_;
  bool outer_session_;
  std::vector<TreeNode> nodes_;
  std::map<uint32_t, int> by_pid_;
  std::map<std::pair<uint32_t, int>, int> helpers_;
  uint32_t next_helper_pid_ = 0;
};

}  // namespace

Result<TreePlan> plan_tree(const std::vector<TreeInput>& input, bool outer_session) {
  if (input.empty() || input.front().ppid != 0)
    return fail(Code::kImageCorrupt, "pstree.img: the first task is not a root");
  return Planner(input, outer_session).run();
}

}  // namespace stasis::tasks
