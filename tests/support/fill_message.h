// SPDX-License-Identifier: Apache-2.0
// A complete message of any type, for tests and as a seed of the fuzzers.
#pragma once

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <string>

namespace stasis::test {

// Every field set, repeated ones once; `number` wherever a number or a text stands. Messages that contain
// themselves end somewhere.
inline void fill(google::protobuf::Message& message, int number, int depth = 0) {
  using google::protobuf::FieldDescriptor;
  const auto* reflection = message.GetReflection();
  for (int i = 0; i < message.GetDescriptor()->field_count(); ++i) {
    const auto* field = message.GetDescriptor()->field(i);
    const bool many = field->is_repeated();
    switch (field->cpp_type()) {
#define FILL(TYPE, Name, value)                                                                           \
  case FieldDescriptor::CPPTYPE_##TYPE:                                                                   \
    many ? reflection->Add##Name(&message, field, value) : reflection->Set##Name(&message, field, value); \
    break;
      FILL(INT32, Int32, number)
      FILL(INT64, Int64, number)
      FILL(UINT32, UInt32, static_cast<uint32_t>(number))
      FILL(UINT64, UInt64, static_cast<uint64_t>(number))
      FILL(BOOL, Bool, false)
      FILL(STRING, String, std::to_string(number))
      FILL(ENUM, Enum, field->enum_type()->value(0))
#undef FILL
      case FieldDescriptor::CPPTYPE_MESSAGE:
        if (depth < 8 && (!many || depth < 3))
          fill(many ? *reflection->AddMessage(&message, field) : *reflection->MutableMessage(&message, field), number,
               depth + 1);
        break;
      default: break;  // no message of ours has floating point
    }
  }
}

}  // namespace stasis::test
