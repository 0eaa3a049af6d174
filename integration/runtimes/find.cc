// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "engine/base/log.h"
#include "integration/runtimes/lxc.h"
#include "integration/runtimes/oci_runtime.h"
#include "integration/runtimes/places.h"
#include "integration/runtimes/podman.h"

namespace stasis::integration::runtimes {
namespace {

// Each way to find a container: its record under a name, and the names there are, for messages.
struct Finder {
  std::string name;
  const OciRuntime* oci = nullptr;

  Result<std::optional<Container>> find(const std::string& id, const FindOptions& options) const {
    if (oci) return find_oci(*oci, id, options);
    return name == "podman" ? find_podman(id, options) : find_lxc(id, options);
  }
  std::vector<std::string> roots(const FindOptions& options) const {
    if (oci) return roots_of(*oci, options);
    return name == "lxc" ? lxc_paths(options) : std::vector<std::string>{};
  }
  std::vector<std::string> names(const FindOptions& options) const {
    if (oci) return names_with(roots(options), oci->record);
    if (name == "lxc") return names_with(roots(options), "config");
    std::vector<std::string> out;
    if (auto stored = stored_containers(options))
      for (const StoredContainer& container : *stored)
        out.push_back(container.names.empty() ? container.id : container.names[0]);
    return out;
  }
};

// podman first: the record below it is the same container under a longer name.
std::vector<Finder> finders() {
  std::vector<Finder> out = {{"podman"}};
  for (const OciRuntime& runtime : oci_runtimes()) out.push_back({std::string(runtime.name), &runtime});
  out.push_back({"lxc"});
  return out;
}

std::string known_text(const Finder& finder, const FindOptions& options) {
  std::vector<std::string> known = finder.names(options);
  constexpr size_t kShown = 20;
  const size_t more = known.size() > kShown ? known.size() - kShown : 0;
  known.resize(known.size() - more);
  if (known.empty()) return "it knows none";
  return cat("it knows: ", join(known, ", "), more > 0 ? cat(" and ", more, " more") : "");
}

Error no_such(const Finder& finder, const std::string& id, const FindOptions& options) {
  const std::vector<std::string> roots = finder.roots(options);
  return Error(Code::kNoContainer,
               cat(finder.name, " has no container ", json_quote(id),
                   roots.empty() ? "" : cat(" under ", join(roots, " or ")), "; ", known_text(finder, options)))
      .about(cat(finder.name, " container ", id));
}

Error no_such_anywhere(const std::string& id, const FindOptions& options) {
  std::vector<std::string> known;
  for (const Finder& finder : finders())
    if (!finder.names(options).empty()) known.push_back(cat(finder.name, ": ", known_text(finder, options).substr(10)));
  return Error(Code::kNoContainer, cat("no runtime has a container ", json_quote(id), "; ",
                                       known.empty() ? "they know none" : cat("they know: ", join(known, "; "))))
      .about(cat("container ", id));
}

std::string names_of(const std::vector<Container>& containers) {
  std::vector<std::string> out;
  for (const Container& container : containers) out.push_back(cat(container.runtime, " ", container.id));
  return join(out, ", ");
}

Result<Container> find_anywhere(const std::string& id, const FindOptions& options) {
  std::vector<Container> found;
  std::optional<Error> first;
  for (const Finder& finder : finders()) {
    auto one = finder.find(id, options);
    if (!one) {
      log::debug("looking for ", id, " with ", finder.name, ": ", one.error().line());
      if (!first) first = std::move(one).error();
    } else if (*one && std::none_of(found.begin(), found.end(),
                                    [&](const Container& other) { return other.pid == (*one)->pid; })) {
      found.push_back(std::move(**one));
    }
  }
  if (found.size() == 1) return std::move(found.front());
  if (found.size() > 1)
    return fail(Error(Code::kUsage, cat("the name ", json_quote(id), " is that of several containers: ",
                                        names_of(found), "; say which with --runtime"))
                    .about(id));
  if (first) return fail(std::move(*first));
  return fail(no_such_anywhere(id, options));
}

}  // namespace

std::vector<std::string> known_runtimes() {
  std::vector<std::string> out;
  for (const Finder& finder : finders()) out.push_back(finder.name);
  return out;
}

Result<Container> find(const std::string& runtime, const std::string& id, const FindOptions& options) {
  if (runtime.empty()) return find_anywhere(id, options);
  for (const Finder& finder : finders()) {
    if (finder.name != runtime) continue;
    auto found = TRY(finder.find(id, options));
    if (!found) return fail(no_such(finder, id, options));
    return std::move(*found);
  }
  return fail(Error(Code::kUnsupported,
                    cat("the runtime ", json_quote(runtime), " is not known; known: ", join(known_runtimes(), ", ")))
                  .about(runtime));
}

}  // namespace stasis::integration::runtimes
