// SPDX-License-Identifier: Apache-2.0
#include "engine/cli/lxc.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "engine/base/strings.h"
#include "tests/unit/engine/cli/doors_fixture.h"

namespace stasis::cli {
namespace {

class Lxc : public DoorsTest {
 protected:
  // What tty.info holds after a dump that named `key`.
  std::string settled(const std::string& text, const std::string& key) {
    const std::string dir = path("img");
    std::filesystem::create_directories(dir);
    std::ofstream(dir + "/tty.info") << text;
    Options options;
    options.images_dir = Fd(::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    options.externals = {{"mnt", "/dev/console", "console"}, {"tty", key, ""}};
    settle_tty_info(options);
    std::ifstream in(dir + "/tty.info");
    return {std::istreambuf_iterator<char>(in), {}};
  }
};

TEST_F(Lxc, ConsoleOfTheContainerIsForgotten) {
  EXPECT_EQ(settled("tty[8800:fff01]", "8800:fff01"), "");  // a device that nothing here is mounted from
}

TEST_F(Lxc, ConsoleOfTheHostStays) {
  struct stat st {};
  ASSERT_EQ(stat("/proc", &st), 0);
  const std::string key = cat("8800:", hex(st.st_dev).substr(2));
  EXPECT_EQ(settled(cat("tty[", key, "]"), key), cat("tty[", key, "]"));
}

TEST_F(Lxc, OtherFilesOfThatNameStay) {
  EXPECT_EQ(settled("something else", "8800:fff01"), "something else");
  EXPECT_EQ(settled("tty[8800:fff02]", "8800:fff01"), "tty[8800:fff02]");
  EXPECT_EQ(settled("tty[junk]", "junk"), "tty[junk]");
}

}  // namespace
}  // namespace stasis::cli
