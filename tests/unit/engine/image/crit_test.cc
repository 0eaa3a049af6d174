// SPDX-License-Identifier: Apache-2.0
// Against Debian's crit(1) (package criu): one image of every kind, filled with something in
// every field, is read by it; every field of its schemas is in ours. Skipped without crit.
#include <gtest/gtest.h>

#include <set>
#include <sstream>

#include "engine/image/magic.h"
#include "engine/image/show.h"
#include "proto/rpc.pb.h"
#include "tests/support/fill_message.h"
#include "tests/unit/engine/image/temp_dir.h"

namespace stasis::image {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

std::string framed(const Message& message) {
  const std::string bytes = message.SerializeAsString();
  std::string out;
  for (int shift = 0; shift < 32; shift += 8) out += static_cast<char>(bytes.size() >> shift & 0xff);
  return out + bytes;
}

// With every count above being 2.
std::string payload_of(const KindInfo& info) {
  switch (info.payload) {
    case Payload::kNone: return {};
    case Payload::kPipe:
    case Payload::kPacket:
    case Payload::kGhost: return "ab";
    case Payload::kTcp:
    case Payload::kBpfMap:
    case Payload::kShm: return "abcd";
    case Payload::kSem: return std::string(8, 's');
    case Payload::kMsgQueue: {
      std::string one = std::string("\4\0\0\0\x08\x02\x10\x02", 8) + "ab" + std::string(6, '\0');
      return one + one;
    }
  }
  return {};
}

TEST(Crit, DecodesEveryKind) {
  if (::access("/usr/bin/crit", X_OK) != 0) GTEST_SKIP() << "crit is not installed";
  TempDir dir;
  std::string script =
      "import sys\nfrom pycriu import images\nfor name in sys.argv[1:]:\n"
      "    image = images.load(open(name, 'rb'))\n"
      "    print(image['magic'], len(image['entries']))\n";
  std::string command = "cd " + dir.path() + " && /usr/bin/python3 decode.py", expected;
  dir.write("decode.py", script);
  for (const auto& info : all_kinds()) {
    // crit knows no handler for these.
    if (info.kind == Kind::kManifest || info.kind == Kind::kBinfmtMisc || info.kind == Kind::kSignal ||
        info.kind == Kind::kMemfdInode || info.kind == Kind::kMqueue)
      continue;
    SCOPED_TRACE(info.crit_name);
    const std::unique_ptr<Message> message(info.prototype()->New());
    test::fill(*message, 2);
    const std::string name = std::string(info.crit_name) + ".img";
    std::string image = head_bytes(info);
    if (info.kind == Kind::kPagemap) image += std::string("\2\0\0\0\x08\x01", 6);
    dir.write(name, image + framed(*message) + payload_of(info));
    ASSERT_OK(to_json(dir.fd(), name));
    command += " " + name;
    expected += std::string(info.crit_name) + (info.kind == Kind::kPagemap ? " 2\n" : " 1\n");
  }
  ASSERT_EQ(::system((command + " > out.txt 2> err.txt").c_str()), 0)
      << dir.content("out.txt") << dir.content("err.txt");
  EXPECT_EQ(dir.content("out.txt"), expected);
}

// "message.field number label type default" of everything pycriu has.
constexpr const char* kListFields = R"(
import glob, importlib, os, pycriu.images
def walk(message):
    for f in message.fields:
        target = f.message_type or f.enum_type
        default = f.default_value if f.has_default_value else ''
        print(message.name + '.' + f.name, f.number, f.label, f.type, target.name if target else '-', int(default) if default != '' else '')
def enum(e):
    for v in e.values: print(e.name + ':' + v.name, v.number)
where = os.path.dirname(pycriu.images.__file__)
names = ['pycriu.images.' + os.path.basename(p)[:-3] for p in glob.glob(where + '/*_pb2.py')] + ['pycriu.rpc_pb2']
for name in names:
    module = importlib.import_module(name)
    for e in module.DESCRIPTOR.enum_types_by_name.values(): enum(e)
    for m in module.DESCRIPTOR.message_types_by_name.values():
        if m.name == 'CRIU_Opts': continue
        walk(m)
        for e in m.enum_types: enum(e)
)";

// The same of ours.
void list_enum(const google::protobuf::EnumDescriptor* type, std::set<std::string>& out) {
  for (int i = 0; i < type->value_count(); ++i)
    out.insert(cat(type->name(), ":", type->value(i)->name(), " ", type->value(i)->number()));
}

void list_file(const google::protobuf::FileDescriptor* file, std::set<std::string>& out) {
  for (int i = 0; i < file->dependency_count(); ++i) list_file(file->dependency(i), out);
  for (int i = 0; i < file->enum_type_count(); ++i) list_enum(file->enum_type(i), out);
  for (int m = 0; m < file->message_type_count(); ++m) {
    const auto* type = file->message_type(m);
    for (int i = 0; i < type->enum_type_count(); ++i) list_enum(type->enum_type(i), out);
    for (int i = 0; i < type->field_count(); ++i) {
      const auto* f = type->field(i);
      std::string target = f->message_type() ? f->message_type()->name()
                           : f->enum_type()  ? f->enum_type()->name()
                                             : "-";
      std::string value;
      if (f->has_default_value()) {
        switch (f->cpp_type()) {
          case FieldDescriptor::CPPTYPE_INT32: value = cat(f->default_value_int32()); break;
          case FieldDescriptor::CPPTYPE_UINT32: value = cat(f->default_value_uint32()); break;
          case FieldDescriptor::CPPTYPE_BOOL: value = cat(f->default_value_bool()); break;
          default: value = cat(f->default_value_enum()->number());
        }
      }
      out.insert(cat(type->name(), ".", f->has_json_name() ? f->json_name() : f->name(), " ", f->number(), " ",
                     static_cast<int>(f->label()), " ", static_cast<int>(f->type()), " ", target, " ", value));
    }
  }
}

TEST(Crit, EveryFieldAndEnumOfItsSchemasIsInOurs) {
  if (::access("/usr/bin/crit", X_OK) != 0) GTEST_SKIP() << "crit is not installed";
  TempDir dir;
  dir.write("list.py", kListFields);
  ASSERT_EQ(::system(("cd " + dir.path() + " && /usr/bin/python3 list.py > out.txt 2> err.txt").c_str()), 0)
      << dir.content("err.txt");
  std::set<std::string> ours;
  for (const auto& info : all_kinds()) list_file(info.prototype()->GetDescriptor()->file(), ours);
  list_file(pb::criu_req::descriptor()->file(), ours);
  std::istringstream theirs(dir.content("out.txt"));
  size_t count = 0;
  for (std::string line; std::getline(theirs, line); ++count) {
    if (line == "criu_opts.images_dir_fd 1 2 5 - ") line += "-1";  // the default came with 4.x
    EXPECT_TRUE(ours.contains(line)) << line;
  }
  EXPECT_GT(count, 1000u);
}

}  // namespace
}  // namespace stasis::image
