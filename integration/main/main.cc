// SPDX-License-Identifier: Apache-2.0
// One binary: the stasis command line, and under the name criu the drop-in.
#include <string_view>

#include "engine/cli/criu_main.h"
#include "integration/cli/stasis_main.h"

int main(int argc, char** argv) {
  std::string_view name = argc > 0 ? argv[0] : "";
  name = name.substr(name.rfind('/') + 1);
  if (name == "criu") return stasis::cli::criu_main(argc, argv);
  return stasis::integration::cli::stasis_main(argc, argv);
}
