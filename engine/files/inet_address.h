// SPDX-License-Identifier: Apache-2.0
// An address of an inet socket, IPv4 or IPv6.
#pragma once

#include <arpa/inet.h>
#include <google/protobuf/repeated_field.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstring>
#include <string>

#include "engine/base/strings.h"

namespace stasis::files {

struct Address {
  sockaddr_storage storage{};
  socklen_t size = sizeof(storage);
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
  sockaddr_in& v4() { return reinterpret_cast<sockaddr_in&>(storage); }
  sockaddr_in6& v6() { return reinterpret_cast<sockaddr_in6&>(storage); }

  std::string text() {
    char host[INET6_ADDRSTRLEN] = "?";
    if (storage.ss_family == AF_INET) {
      ::inet_ntop(AF_INET, &v4().sin_addr, host, sizeof(host));
      return cat(host, ":", ntohs(v4().sin_port));
    }
    ::inet_ntop(AF_INET6, &v6().sin6_addr, host, sizeof(host));
    return cat("[", host, "]:", ntohs(v6().sin6_port));
  }
  uint16_t port() { return ntohs(storage.ss_family == AF_INET ? v4().sin_port : v6().sin6_port); }
  void put_words(google::protobuf::RepeatedField<uint32_t>* words) {
    uint32_t raw[4];
    const int count = storage.ss_family == AF_INET ? 1 : 4;
    std::memcpy(raw, count == 1 ? static_cast<void*>(&v4().sin_addr) : &v6().sin6_addr, sizeof(uint32_t) * count);
    for (int i = 0; i < count; ++i) words->Add(raw[i]);
  }
  // IPv4, also in the form that an IPv6 socket has it in.
  bool is_v4() { return storage.ss_family == AF_INET || IN6_IS_ADDR_V4MAPPED(&v6().sin6_addr); }
  // The bytes of the address on the wire: 4 or 16.
  std::string wire() {
    if (storage.ss_family == AF_INET) return std::string(reinterpret_cast<const char*>(&v4().sin_addr), 4);
    const std::string all(reinterpret_cast<const char*>(&v6().sin6_addr), 16);
    return is_v4() ? all.substr(12) : all;
  }
};

}  // namespace stasis::files
