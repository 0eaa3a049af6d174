// SPDX-License-Identifier: Apache-2.0
#include "engine/kernel/netlink.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

namespace stasis::kernel {
namespace {

constexpr uint16_t kTypeMask = 0x3fff;  // NLA_TYPE_MASK
constexpr size_t kBuffer = 64 * 1024;   // the kernel's dump buffers are smaller

size_t align4(size_t size) { return (size + 3) & ~size_t{3}; }

// What an NLMSG_ERROR says: errno, and in words if the kernel has them (NLMSGERR_ATTR_MSG).
Error refusal(std::string_view raw, std::string_view what) {
  nlmsgerr error{};
  if (raw.size() < NLMSG_HDRLEN + sizeof(error)) return Error(Code::kSystem, cat(what, ": short netlink answer"));
  std::memcpy(&error, raw.data() + NLMSG_HDRLEN, sizeof(error));
  nlmsghdr header{};
  std::memcpy(&header, raw.data(), sizeof(header));
  std::string words;
  size_t skip = NLMSG_HDRLEN + sizeof(error);
  if (!(header.nlmsg_flags & NLM_F_CAPPED) && error.msg.nlmsg_len > NLMSG_HDRLEN)
    skip += align4(error.msg.nlmsg_len - NLMSG_HDRLEN);
  if ((header.nlmsg_flags & NLM_F_ACK_TLVS) && skip < raw.size())
    if (const auto attributes = parse_attributes(raw.substr(skip)))
      words = attribute_name(*attributes, NLMSGERR_ATTR_MSG);
  errno = -error.error;
  auto out = Error::sys(what);
  return words.empty() ? out : Error(out.code(), cat(out.message(), " (", words, ")")).with_errno(-error.error);
}

}  // namespace

NetlinkMessage::NetlinkMessage(uint16_t type, uint16_t flags) {
  nlmsghdr header{};
  header.nlmsg_type = type;
  header.nlmsg_flags = flags;
  append(&header, sizeof(header));
}

void NetlinkMessage::append(const void* data, size_t size) {
  data_.append(static_cast<const char*>(data), size);
  data_.resize(align4(data_.size()));
}

void NetlinkMessage::attr(uint16_t type, std::string_view bytes) {
  nlattr head{};
  head.nla_len = static_cast<uint16_t>(sizeof(head) + bytes.size());
  head.nla_type = type;
  data_.append(reinterpret_cast<const char*>(&head), sizeof(head));
  append(bytes.data(), bytes.size());
}

size_t NetlinkMessage::begin(uint16_t type) {
  const size_t at = data_.size();
  attr(type, {});
  return at;
}

void NetlinkMessage::end(size_t at) {
  const auto length = static_cast<uint16_t>(data_.size() - at);
  std::memcpy(data_.data() + at, &length, sizeof(length));
}

std::string NetlinkMessage::bytes(uint32_t sequence) const {
  std::string out = data_;
  nlmsghdr header{};
  std::memcpy(&header, out.data(), sizeof(header));
  header.nlmsg_len = static_cast<uint32_t>(out.size());
  header.nlmsg_seq = sequence;
  std::memcpy(out.data(), &header, sizeof(header));
  return out;
}

std::optional<Attributes> parse_attributes(std::string_view bytes) {
  Attributes out;
  while (bytes.size() >= sizeof(nlattr)) {
    nlattr head;
    std::memcpy(&head, bytes.data(), sizeof(head));
    if (head.nla_len < sizeof(head) || head.nla_len > bytes.size()) return std::nullopt;
    out[head.nla_type & kTypeMask] = bytes.substr(sizeof(head), head.nla_len - sizeof(head));
    bytes.remove_prefix(std::min(align4(head.nla_len), bytes.size()));
  }
  return bytes.empty() ? std::optional(out) : std::nullopt;
}

std::string attribute_name(const Attributes& attributes, uint16_t type) {
  const auto at = attributes.find(type);
  return at == attributes.end() ? std::string() : std::string(at->second.substr(0, at->second.find('\0')));
}

std::optional<std::vector<std::string>> split_messages(std::string_view bytes) {
  std::vector<std::string> out;
  while (bytes.size() >= sizeof(nlmsghdr)) {
    nlmsghdr header;
    std::memcpy(&header, bytes.data(), sizeof(header));
    if (header.nlmsg_len < sizeof(header) || header.nlmsg_len > bytes.size()) return std::nullopt;
    out.emplace_back(bytes.substr(0, header.nlmsg_len));
    bytes.remove_prefix(std::min(align4(header.nlmsg_len), bytes.size()));
  }
  return bytes.empty() ? std::optional(out) : std::nullopt;
}

Result<Netlink> Netlink::open(int protocol) {
  Fd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol));
  if (!fd) return fail_sys("socket(AF_NETLINK)", cat(protocol));
  const int on = 1;
  (void)::setsockopt(fd.get(), SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof(on));  // errors in words, since 4.12
  return Netlink(std::move(fd));
}

Result<Netlink::Answer> Netlink::exchange(const NetlinkMessage& message, std::string_view what) {
  const std::string request = message.bytes(++sequence_);
  sockaddr_nl kernel{.nl_family = AF_NETLINK};
  if (::sendto(fd_.get(), request.data(), request.size(), 0, reinterpret_cast<sockaddr*>(&kernel), sizeof(kernel)) !=
      static_cast<ssize_t>(request.size()))
    return fail_sys(what);
  Answer answer;
  std::string buffer(kBuffer, '\0');
  while (true) {
    // MSG_TRUNC: the length of the whole datagram, so that a cut one is noticed.
    const ssize_t n = ::recv(fd_.get(), buffer.data(), buffer.size(), MSG_TRUNC);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_sys(what);
    const auto messages = static_cast<size_t>(n) > buffer.size()
                              ? std::nullopt
                              : split_messages(std::string_view(buffer).substr(0, static_cast<size_t>(n)));
    if (!messages) return fail(Code::kSystem, cat(what, ": a netlink answer that cannot be read"));
    for (const auto& raw : *messages) {
      nlmsghdr header;
      std::memcpy(&header, raw.data(), sizeof(header));
      if (header.nlmsg_seq != sequence_) continue;  // of an earlier request that was given up
      answer.interrupted |= (header.nlmsg_flags & NLM_F_DUMP_INTR) != 0;
      if (header.nlmsg_type == NLMSG_DONE || header.nlmsg_type == NLMSG_ERROR) {
        int error = 0;
        if (raw.size() >= NLMSG_HDRLEN + sizeof(error)) std::memcpy(&error, raw.data() + NLMSG_HDRLEN, sizeof(error));
        if (error != 0) return fail(refusal(raw, what));
        return answer;
      }
      answer.messages.push_back(raw);
    }
  }
}

Result<void> Netlink::ask(const NetlinkMessage& message, std::string_view what) {
  (void)TRY(exchange(message, what));
  return {};
}

Result<std::vector<std::string>> Netlink::dump(const NetlinkMessage& message, std::string_view what) {
  for (int round = 0; round < 10; ++round) {
    auto answer = TRY(exchange(message, what));
    if (!answer.interrupted) return std::move(answer.messages);
  }
  return fail(Code::kSystem, cat(what, ": it changes all the time"));
}

Result<std::string> Netlink::get(const NetlinkMessage& message, std::string_view what) {
  auto answer = TRY(exchange(message, what));
  if (answer.messages.size() != 1)
    return fail(Code::kSystem, cat(what, ": ", answer.messages.size(), " answers instead of one"));
  return std::move(answer.messages.front());
}

}  // namespace stasis::kernel
