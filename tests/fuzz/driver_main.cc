// SPDX-License-Identifier: Apache-2.0
// main() of a fuzz driver where the compiler has no libFuzzer: runs the files given, then
// mutations of them and of the driver's own seeds. The same numbers give the same inputs.
//   fuzz_X [--runs N] [--seed S] [FILE...]
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/strings.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

// A driver may define this to start from inputs made by code.
__attribute__((weak)) std::vector<std::string> fuzz_seeds() { return {}; }

namespace {

constexpr size_t kMaxSize = 1u << 20;
constexpr const char* kFailureFile = "fuzz-failure.bin";

// For the signal handler only.
const std::string* current_input = nullptr;

void on_crash(int signal) {
  if (FILE* out = fopen(kFailureFile, "wb"); out && current_input) {
    fwrite(current_input->data(), 1, current_input->size(), out);
    fclose(out);
    fprintf(stderr, "input kept in %s\n", kFailureFile);
  }
  ::signal(signal, SIG_DFL);
  ::raise(signal);
}

void run(const std::string& input) {
  current_input = &input;
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
  current_input = nullptr;
}

class Mutator {
 public:
  Mutator(uint64_t seed, const std::vector<std::string>& corpus) : random_(seed), corpus_(corpus) {}

  std::string next() {
    std::string input = corpus_[below(corpus_.size())];
    for (size_t steps = 1 + below(6); steps > 0; --steps) step(input);
    if (input.size() > kMaxSize) input.resize(kMaxSize);
    return input;
  }

 private:
  size_t below(size_t limit) { return limit ? random_() % limit : 0; }

  void step(std::string& input) {
    static constexpr uint64_t kNumbers[] = {0,
                                            1,
                                            0x7f,
                                            0x80,
                                            0xff,
                                            0x7fff,
                                            0xffff,
                                            0x7fffffff,
                                            0x80000000,
                                            0xffffffff,
                                            0x7fffffffffffffff,
                                            0xffffffffffffffff};
    const size_t at = below(input.size() + 1), length = below(std::min<size_t>(input.size() - at, 64) + 1);
    switch (below(8)) {
      case 0:
        if (at < input.size()) input[at] = static_cast<char>(input[at] ^ 1 << below(8));
        break;
      case 1:
        if (at < input.size()) input[at] = static_cast<char>(random_());
        break;
      case 2: input.erase(at, length); break;
      case 3: input.insert(at, std::string(input, at, length)); break;
      case 4: input.resize(at); break;
      case 5: input.insert(at, 1 + below(8), static_cast<char>(random_())); break;
      case 6: {
        const uint64_t number = kNumbers[below(std::size(kNumbers))];
        const size_t width = size_t{1} << below(4);
        for (size_t i = 0; i < width && at + i < input.size(); ++i) input[at + i] = static_cast<char>(number >> 8 * i);
        break;
      }
      default: {
        const std::string& other = corpus_[below(corpus_.size())];
        input.replace(at, std::string::npos, other, below(other.size() + 1), std::string::npos);
      }
    }
  }

  std::mt19937_64 random_;
  const std::vector<std::string>& corpus_;
};

}  // namespace

int main(int argc, char** argv) {
  uint64_t runs = 1000, seed = 1;
  std::vector<std::string> corpus = fuzz_seeds();
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word == "--runs" || word == "--seed") {
      const auto number = stasis::parse_int<uint64_t>(i + 1 < argc ? argv[++i] : "");
      if (!number) {
        fprintf(stderr, "%s wants a number\n", std::string(word).c_str());
        return 2;
      }
      (word == "--runs" ? runs : seed) = *number;
      continue;
    }
    std::ifstream file(argv[i], std::ios::binary);
    if (!file) {
      fprintf(stderr, "cannot read %s\n", argv[i]);
      return 2;
    }
    corpus.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  corpus.emplace_back();
  for (const int signal : {SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL}) ::signal(signal, on_crash);
  for (const auto& input : corpus) run(input);
  Mutator mutator(seed, corpus);
  for (uint64_t i = 0; i < runs; ++i) run(mutator.next());
  printf("%zu inputs and %llu mutations\n", corpus.size(), static_cast<unsigned long long>(runs));
  return 0;
}
