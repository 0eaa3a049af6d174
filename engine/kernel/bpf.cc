// SPDX-License-Identifier: Apache-2.0
#include "engine/kernel/bpf.h"

#include <linux/bpf.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "engine/base/fd.h"
#include "engine/base/log.h"

namespace stasis::kernel {
namespace {

constexpr uint32_t kMaxPrograms = 64;  // BPF_CGROUP_MAX_PROGS
constexpr size_t kMaxInstructions = BPF_MAXINSNS;

long bpf(bpf_cmd command, bpf_attr& attributes) {
  return ::syscall(__NR_bpf, command, &attributes, sizeof(attributes));
}

uint64_t address(const void* pointer) { return reinterpret_cast<uint64_t>(pointer); }

std::unexpected<Error> unsupported(const std::string& about, std::string_view why) {
  return fail(Error(Code::kUnsupported, cat("a device filter (BPF) of ", about, " ", why)).about(about));
}

Result<std::string> read_program(uint32_t id, const std::string& about) {
  bpf_attr attributes{};
  attributes.prog_id = id;
  const long fd = bpf(BPF_PROG_GET_FD_BY_ID, attributes);
  if (fd < 0) return fail_sys(Code::kCgroup, "bpf(BPF_PROG_GET_FD_BY_ID)", about);
  const Fd program(static_cast<int>(fd));
  std::string text;
  for (int round = 0; round < 2; ++round) {
    bpf_prog_info info{};
    info.xlated_prog_len = static_cast<uint32_t>(text.size());
    info.xlated_prog_insns = address(text.data());
    attributes = {};
    attributes.info.bpf_fd = static_cast<uint32_t>(program.get());
    attributes.info.info_len = sizeof(info);
    attributes.info.info = address(&info);
    if (bpf(BPF_OBJ_GET_INFO_BY_FD, attributes) < 0)
      return fail_sys(Code::kCgroup, "bpf(BPF_OBJ_GET_INFO_BY_FD)", about);
    if (info.xlated_prog_len > kMaxInstructions * sizeof(bpf_insn)) return unsupported(about, "is too long");
    if (round == 1 && info.xlated_prog_insns == 0) return unsupported(about, "cannot be read");
    text.resize(info.xlated_prog_len);
  }
  // No such program is rewritten by the kernel on loading: what it gives is what it takes.
  TRY(check_device_program(text, about));
  return text;
}

}  // namespace

Result<void> check_device_program(std::string_view instructions, const std::string& about) {
  const size_t count = instructions.size() / sizeof(bpf_insn);
  if (count == 0 || count > kMaxInstructions || instructions.size() % sizeof(bpf_insn) != 0)
    return unsupported(about, "has an impossible length");
  for (size_t i = 0; i < count; ++i) {
    bpf_insn instruction;
    std::memcpy(&instruction, instructions.data() + i * sizeof(instruction), sizeof(instruction));
    const bool wide = instruction.code == (BPF_LD | BPF_IMM | BPF_DW);
    if (instruction.code == (BPF_JMP | BPF_CALL) || (wide && instruction.src_reg != 0))
      return unsupported(about, "uses maps or calls into the kernel");
    if (wide) ++i;  // two words
  }
  return {};
}

Result<std::vector<std::string>> read_device_programs(int cgroup_fd, const std::string& about) {
  uint32_t ids[kMaxPrograms] = {};
  bpf_attr attributes{};
  attributes.query.target_fd = static_cast<uint32_t>(cgroup_fd);
  attributes.query.attach_type = BPF_CGROUP_DEVICE;
  attributes.query.prog_ids = address(ids);
  attributes.query.prog_cnt = kMaxPrograms;
  std::vector<std::string> out;
  if (bpf(BPF_PROG_QUERY, attributes) < 0) {
    if (errno == EINVAL || errno == ENOSYS) return out;
    if (errno == EPERM) {
      log::warning(about, ": its device filter (BPF), if it has one, may not be read here, ignoring");
      return out;
    }
    return fail_sys(Code::kCgroup, "bpf(BPF_PROG_QUERY)", about);
  }
  for (uint32_t i = 0; i < attributes.query.prog_cnt && i < kMaxPrograms; ++i)
    out.push_back(TRY(read_program(ids[i], about)));
  return out;
}

Result<void> attach_device_program(int cgroup_fd, std::string_view instructions, const std::string& about) {
  TRY(check_device_program(instructions, about));
  bpf_attr attributes{};
  attributes.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
  attributes.insns = address(instructions.data());
  attributes.insn_cnt = static_cast<uint32_t>(instructions.size() / sizeof(bpf_insn));
  attributes.license = address("Apache-2.0");  // no program with calls that want another one comes here
  const long fd = bpf(BPF_PROG_LOAD, attributes);
  if (fd < 0) return fail_sys(Code::kCgroup, "load the device filter (BPF) of", about);
  const Fd program(static_cast<int>(fd));
  attributes = {};
  attributes.target_fd = static_cast<uint32_t>(cgroup_fd);
  attributes.attach_bpf_fd = static_cast<uint32_t>(program.get());
  attributes.attach_type = BPF_CGROUP_DEVICE;
  attributes.attach_flags = BPF_F_ALLOW_MULTI;
  if (bpf(BPF_PROG_ATTACH, attributes) < 0) return fail_sys(Code::kCgroup, "attach the device filter (BPF) of", about);
  return {};
}

}  // namespace stasis::kernel
