// SPDX-License-Identifier: Apache-2.0
// Protobuf messages as JSON with the schema's own field names: 64-bit numbers stay
// numbers, enums are names, bytes are base64; broken UTF-8 in strings never fails.
#pragma once

#include <google/protobuf/message.h>

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace stasis::image {

// Which fields to print; no children: everything below.
struct Selection {
  std::map<std::string, Selection, std::less<>> children;
};

// Adds "a.b.c"; false if `type` has no such field.
bool select_field(const google::protobuf::Descriptor& type, std::string_view path, Selection& selection);

// Appends an object. `tail` is put in as the last member if not empty.
void append_json(std::string& out, const google::protobuf::Message& message, const Selection& selection, int indent,
                 std::string_view tail = {});

}  // namespace stasis::image
