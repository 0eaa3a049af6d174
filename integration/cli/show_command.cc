// SPDX-License-Identifier: Apache-2.0
// stasis show: image files as JSON.
#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>

#include "engine/base/io.h"
#include "engine/image/show.h"
#include "integration/cli/session.h"

namespace stasis::integration::cli {
namespace {

Result<int> run(Session& session) {
  if (session.request.words.size() != 1) return fail(Code::kUsage, "name one image file or one directory of images");
  const std::string path = session.request.words[0];
  std::vector<std::string> fields;
  if (const std::string* list = session.value("fields"))
    for (std::string_view field : split(*list, ','))
      if (!field.empty()) fields.emplace_back(field);
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) {
    if (errno == ENOENT) return fail_sys(Code::kImageMissing, "open", path);
    return fail_sys("open", path);
  }
  if (!S_ISDIR(status.st_mode)) {
    const size_t slash = path.rfind('/');
    const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
    const Fd dir = TRY(open_at(AT_FDCWD, folder, O_RDONLY | O_DIRECTORY));
    const std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
    std::printf("%s\n", TRY(image::to_json(dir.get(), name, fields)).c_str());
    return 0;
  }
  const Fd dir = TRY(open_at(AT_FDCWD, path, O_RDONLY | O_DIRECTORY));
  const std::vector<std::string> names = TRY(image::image_names(dir.get()));
  if (names.empty()) return fail(Error(Code::kImageMissing, cat("there are no image files in ", path)).about(path));
  std::string out = "{";
  for (const std::string& name : names)
    out += cat(out.size() > 1 ? ",\n" : "\n", json_quote(name), ": ", TRY(image::to_json(dir.get(), name, fields)));
  std::printf("%s\n}\n", out.c_str());
  return 0;
}

constexpr stasis::cli::OptionSpec kExtra[] = {
    kJsonOption,
    {'f', "fields", stasis::cli::Arg::kRequired, false, stasis::cli::Support::kBuilt, 0, "", "A,B.C",
     "only these fields, dotted"},
};

}  // namespace

const Command& show_command() {
  static constexpr Command kCommand{
      "show", "FILE | DIR [--fields A,B.C]", "print image files as JSON", "", 0, kExtra, run,
  };
  return kCommand;
}

}  // namespace stasis::integration::cli
