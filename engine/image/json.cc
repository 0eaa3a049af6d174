// SPDX-License-Identifier: Apache-2.0
#include "engine/image/json.h"

#include "engine/base/error.h"
#include "engine/base/strings.h"

namespace stasis::image {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

std::string base64(std::string_view bytes) {
  static constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t group = 0;
    for (size_t k = 0; k < 3; ++k)
      group = group << 8 | (i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0);
    for (size_t k = 0; k < 4; ++k) out += i + k <= bytes.size() ? kDigits[group >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

// Printed without line breaks between the elements of an array.
bool is_number(const FieldDescriptor* field) {
  return field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE && field->cpp_type() != FieldDescriptor::CPPTYPE_STRING;
}

void append_text(std::string& out, const FieldDescriptor* field, const std::string& text) {
  out += json_quote(field->type() == FieldDescriptor::TYPE_BYTES ? base64(text) : text);
}

// The schemas have no float or double fields.
void append_value(std::string& out, const Message& message, const FieldDescriptor* field, int index,
                  const Selection& selection, int indent) {
  const Reflection* reflection = message.GetReflection();
  const bool many = field->is_repeated();
  auto number = [&](auto repeated, auto single) {
    out +=
        std::to_string(many ? (reflection->*repeated)(message, field, index) : (reflection->*single)(message, field));
  };
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32: return number(&Reflection::GetRepeatedInt32, &Reflection::GetInt32);
    case FieldDescriptor::CPPTYPE_INT64: return number(&Reflection::GetRepeatedInt64, &Reflection::GetInt64);
    case FieldDescriptor::CPPTYPE_UINT32: return number(&Reflection::GetRepeatedUInt32, &Reflection::GetUInt32);
    case FieldDescriptor::CPPTYPE_UINT64: return number(&Reflection::GetRepeatedUInt64, &Reflection::GetUInt64);
    case FieldDescriptor::CPPTYPE_DOUBLE: return number(&Reflection::GetRepeatedDouble, &Reflection::GetDouble);
    case FieldDescriptor::CPPTYPE_FLOAT: return number(&Reflection::GetRepeatedFloat, &Reflection::GetFloat);
    case FieldDescriptor::CPPTYPE_BOOL:
      out += (many ? reflection->GetRepeatedBool(message, field, index) : reflection->GetBool(message, field))
                 ? "true"
                 : "false";
      return;
    case FieldDescriptor::CPPTYPE_ENUM:
      out += json_quote(
          (many ? reflection->GetRepeatedEnum(message, field, index) : reflection->GetEnum(message, field))->name());
      return;
    case FieldDescriptor::CPPTYPE_STRING:
      append_text(out, field,
                  many ? reflection->GetRepeatedString(message, field, index) : reflection->GetString(message, field));
      return;
    case FieldDescriptor::CPPTYPE_MESSAGE:
      append_json(out,
                  many ? reflection->GetRepeatedMessage(message, field, index) : reflection->GetMessage(message, field),
                  selection, indent);
      return;
  }
}

void append_array(std::string& out, const Message& message, const FieldDescriptor* field, const Selection& selection,
                  int indent) {
  const int count = message.GetReflection()->FieldSize(message, field);
  const bool one_line = is_number(field);
  const std::string separator = one_line ? ", " : ",\n" + std::string(indent + 2, ' ');
  out += '[';
  for (int i = 0; i < count; ++i) {
    out += i > 0 ? separator : one_line ? "" : "\n" + std::string(indent + 2, ' ');
    append_value(out, message, field, i, selection, indent + 2);
  }
  if (!one_line) out += "\n" + std::string(indent, ' ');
  out += ']';
}

// A field whose own name is a macro of the C library carries the interface's name in json_name.
const std::string& shown_name(const FieldDescriptor* field) {
  return field->has_json_name() ? field->json_name() : field->name();
}

const FieldDescriptor* find_shown(const Descriptor& type, std::string_view name) {
  for (int i = 0; i < type.field_count(); ++i)
    if (shown_name(type.field(i)) == name) return type.field(i);
  return nullptr;
}

}  // namespace

bool select_field(const Descriptor& type, std::string_view path, Selection& selection) {
  const Descriptor* at = &type;
  Selection* node = &selection;
  for (const auto piece : split(path, '.')) {
    const FieldDescriptor* field = at ? find_shown(*at, piece) : nullptr;
    if (!field) return false;
    node = &node->children[std::string(piece)];
    at = field->message_type();
  }
  return true;
}

void append_json(std::string& out, const Message& message, const Selection& selection, int indent,
                 std::string_view tail) {
  static const Selection kAll;
  std::vector<const FieldDescriptor*> fields;
  message.GetReflection()->ListFields(message, &fields);
  const std::string line = "\n" + std::string(indent + 2, ' ');
  bool first = true;
  out += '{';
  for (const FieldDescriptor* field : fields) {
    const Selection* below = &kAll;
    if (!selection.children.empty()) {
      const auto found = selection.children.find(shown_name(field));
      if (found == selection.children.end()) continue;
      below = &found->second;
    }
    out += first ? "" : ",";
    out += cat(line, json_quote(shown_name(field)), ": ");
    first = false;
    if (field->is_repeated())
      append_array(out, message, field, *below, indent + 2);
    else
      append_value(out, message, field, 0, *below, indent + 2);
  }
  if (!tail.empty()) {
    out += cat(first ? "" : ",", line, tail);
    first = false;
  }
  if (!first) out += "\n" + std::string(indent, ' ');
  out += '}';
}

}  // namespace stasis::image
