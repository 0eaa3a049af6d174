// SPDX-License-Identifier: Apache-2.0
// netlink(7): building messages, reading them with every length checked, and one socket that
// asks and waits for the answer. Knows nothing of what the messages mean.
#pragma once

#include <linux/netlink.h>

#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/fd.h"
#include "engine/base/result.h"

namespace stasis::kernel {

// A message under construction: nlmsghdr, a fixed head, attributes.
class NetlinkMessage {
 public:
  NetlinkMessage(uint16_t type, uint16_t flags);
  template <class Head>
  NetlinkMessage(uint16_t type, uint16_t flags, const Head& head) : NetlinkMessage(type, flags) {
    append(&head, sizeof(head));
  }
  void attr(uint16_t type, std::string_view bytes);
  // A string as the kernel wants it, with its NUL.
  void attr_name(uint16_t type, const std::string& name) {
    attr(type, std::string_view(name.c_str(), name.size() + 1));
  }
  void attr_u32(uint16_t type, uint32_t value) {
    attr(type, std::string_view(reinterpret_cast<const char*>(&value), sizeof(value)));
  }
  // A nested attribute: begin() gives what end() takes.
  size_t begin(uint16_t type);
  void end(size_t at);
  // Raw bytes, padded (a head inside a nested attribute).
  void append(const void* data, size_t size);
  // The finished message.
  std::string bytes(uint32_t sequence) const;

 private:
  std::string data_;
};

using Attributes = std::map<uint16_t, std::string_view>;  // by type, without the nested and byte order bits
// Attributes in `bytes`; a length that does not fit is nullopt.
std::optional<Attributes> parse_attributes(std::string_view bytes);

// One received message: its head of `Head`, its attributes. Views into `raw`.
template <class Head>
struct Parsed {
  nlmsghdr header{};
  Head head{};
  Attributes attributes;
};
template <class Head>
std::optional<Parsed<Head>> parse_message(std::string_view raw) {
  constexpr size_t kFixed = NLMSG_HDRLEN + NLMSG_ALIGN(sizeof(Head));
  Parsed<Head> out;
  if (raw.size() < NLMSG_HDRLEN + sizeof(Head)) return std::nullopt;
  std::memcpy(&out.header, raw.data(), sizeof(out.header));
  if (out.header.nlmsg_len != raw.size()) return std::nullopt;
  std::memcpy(&out.head, raw.data() + NLMSG_HDRLEN, sizeof(out.head));
  if (raw.size() > kFixed) {
    auto attributes = parse_attributes(raw.substr(kFixed));
    if (!attributes) return std::nullopt;
    out.attributes = std::move(*attributes);
  }
  return out;
}

// A number of an attribute, if it is there and has this width.
template <class Int>
std::optional<Int> attribute(const Attributes& attributes, uint16_t type) {
  const auto at = attributes.find(type);
  if (at == attributes.end() || at->second.size() != sizeof(Int)) return std::nullopt;
  Int value;
  std::memcpy(&value, at->second.data(), sizeof(value));
  return value;
}
// A string up to its NUL; empty if it is not there.
std::string attribute_name(const Attributes& attributes, uint16_t type);

// Cuts a sequence of messages (a file, a datagram) into single ones; nullopt if lengths do not fit.
std::optional<std::vector<std::string>> split_messages(std::string_view bytes);

// A socket of the network namespace that the caller is in when it opens it.
class Netlink {
 public:
  static Result<Netlink> open(int protocol);
  // Sends a request and waits for its acknowledgement. A refusal has the kernel's errno and words.
  Result<void> ask(const NetlinkMessage& message, std::string_view what);
  // Every message of the answer to a request with NLM_F_DUMP; asked again if it changed meanwhile.
  Result<std::vector<std::string>> dump(const NetlinkMessage& message, std::string_view what);
  // The one message that answers a request without NLM_F_DUMP.
  Result<std::string> get(const NetlinkMessage& message, std::string_view what);

 private:
  explicit Netlink(Fd fd) : fd_(std::move(fd)) {}
  struct Answer {
    std::vector<std::string> messages;
    bool interrupted = false;
  };
  Result<Answer> exchange(const NetlinkMessage& message, std::string_view what);
  Fd fd_;
  uint32_t sequence_ = 0;
};

}  // namespace stasis::kernel
