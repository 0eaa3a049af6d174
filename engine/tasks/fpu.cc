// SPDX-License-Identifier: Apache-2.0
#include "engine/tasks/fpu.h"

#include <cpuid.h>

#include <cstring>

namespace stasis::tasks {
namespace {

constexpr size_t kLegacySize = 512, kHeaderAt = 512, kHeaderSize = 64;

// The FXSAVE area, SDM vol. 1 table 10-2.
struct Legacy {
  uint16_t cwd, swd, twd, fop;
  uint64_t rip, rdp;
  uint32_t mxcsr, mxcsr_mask;
  uint32_t st_space[32];
  uint32_t xmm_space[64];
  uint32_t padding[24];
};
static_assert(sizeof(Legacy) == kLegacySize);

enum Component { kYmm = 2, kBndregs = 3, kBndcsr = 4, kOpmask = 5, kZmmUpper = 6, kHi16Zmm = 7, kPkru = 9 };

struct Place {
  uint32_t offset = 0, size = 0;
};
// Where a component lies in the standard format: CPUID leaf 0dh.
Place place_of(Component component) {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  __cpuid_count(0x0d, component, eax, ebx, ecx, edx);
  return Place{ebx, eax};
}

template <class Field>
void dump_component(const std::vector<uint8_t>& xstate, Component c, Field* field) {
  using Value = typename Field::value_type;
  const auto place = place_of(c);
  if (!place.size || place.offset + place.size > xstate.size()) return;
  for (size_t at = 0; at + sizeof(Value) <= place.size; at += sizeof(Value)) {
    Value value;
    std::memcpy(&value, xstate.data() + place.offset + at, sizeof(value));
    field->Add(value);
  }
}

template <class Field>
Result<void> fill_component(const Field& field, Component c, std::vector<uint8_t>& xstate, uint64_t bv) {
  using Value = typename Field::value_type;
  if (field.empty() || !(bv >> c & 1)) return {};
  const auto place = place_of(c);
  const size_t bytes = static_cast<size_t>(field.size()) * sizeof(Value);
  if (!place.size || place.offset + place.size > xstate.size() || bytes > place.size)
    return fail(Code::kImageArch, cat("this CPU lacks processor state component ", c, " that a task uses"));
  std::memcpy(xstate.data() + place.offset, field.data(), bytes);
  return {};
}

}  // namespace

bool has_protection_keys() {
  constexpr uint32_t kOspke = 1u << 4;  // CPUID leaf 7, ecx: the kernel has switched them on
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (ecx & kOspke);
}

std::optional<uint32_t> key_rights(const std::vector<uint8_t>& xstate) {
  const auto place = place_of(kPkru);
  uint32_t rights = 0;
  if (place.size < sizeof(rights) || place.offset + place.size > xstate.size()) return std::nullopt;
  std::memcpy(&rights, xstate.data() + place.offset, sizeof(rights));
  return rights;
}

void mark_key_rights(std::vector<uint8_t>& xstate) {
  if (key_rights(xstate).value_or(0) == 0) return;
  uint64_t bv = 0;
  std::memcpy(&bv, xstate.data() + kHeaderAt, sizeof(bv));
  bv |= uint64_t{1} << kPkru;
  std::memcpy(xstate.data() + kHeaderAt, &bv, sizeof(bv));
}

Result<void> dump_xstate(const std::vector<uint8_t>& xstate, pb::user_x86_fpregs_entry& out) {
  if (xstate.size() < kLegacySize + kHeaderSize) return fail(Code::kKernelFeature, "the CPU has no XSAVE");
  Legacy legacy;
  std::memcpy(&legacy, xstate.data(), sizeof(legacy));
  out.set_cwd(legacy.cwd);
  out.set_swd(legacy.swd);
  out.set_twd(legacy.twd);
  out.set_fop(legacy.fop);
  out.set_rip(legacy.rip);
  out.set_rdp(legacy.rdp);
  out.set_mxcsr(legacy.mxcsr);
  out.set_mxcsr_mask(legacy.mxcsr_mask);
  for (auto v : legacy.st_space) out.add_st_space(v);
  for (auto v : legacy.xmm_space) out.add_xmm_space(v);
  for (auto v : legacy.padding) out.add_padding(v);
  uint64_t bv;
  std::memcpy(&bv, xstate.data() + kHeaderAt, sizeof(bv));
  auto& x = *out.mutable_xsave();
  x.set_xstate_bv(bv);
  dump_component(xstate, kYmm, x.mutable_ymmh_space());
  dump_component(xstate, kBndregs, x.mutable_bndreg_state());
  dump_component(xstate, kBndcsr, x.mutable_bndcsr_state());
  dump_component(xstate, kOpmask, x.mutable_opmask_reg());
  dump_component(xstate, kZmmUpper, x.mutable_zmm_upper());
  dump_component(xstate, kHi16Zmm, x.mutable_hi16_zmm());
  dump_component(xstate, kPkru, x.mutable_pkru());
  return {};
}

Result<void> fill_xstate(const pb::user_x86_fpregs_entry& in, std::vector<uint8_t>& xstate) {
  if (xstate.size() < kLegacySize + kHeaderSize) return fail(Code::kKernelFeature, "the CPU has no XSAVE");
  if (in.st_space_size() > 32 || in.xmm_space_size() > 64)
    return fail(Code::kImageCorrupt, "floating point state has the wrong size");
  Legacy legacy;
  std::memcpy(&legacy, xstate.data(), sizeof(legacy));  // the tail holds the kernel's own marks
  legacy.cwd = static_cast<uint16_t>(in.cwd());
  legacy.swd = static_cast<uint16_t>(in.swd());
  legacy.twd = static_cast<uint16_t>(in.twd());
  legacy.fop = static_cast<uint16_t>(in.fop());
  legacy.rip = in.rip();
  legacy.rdp = in.rdp();
  // A bit outside the CPU's mask would be refused by the kernel.
  legacy.mxcsr = in.mxcsr() & (legacy.mxcsr_mask ? legacy.mxcsr_mask : 0xffbf);
  std::memset(legacy.st_space, 0, sizeof(legacy.st_space));
  std::memset(legacy.xmm_space, 0, sizeof(legacy.xmm_space));
  std::memcpy(legacy.st_space, in.st_space().data(), static_cast<size_t>(in.st_space_size()) * 4);
  std::memcpy(legacy.xmm_space, in.xmm_space().data(), static_cast<size_t>(in.xmm_space_size()) * 4);
  std::memcpy(xstate.data(), &legacy, sizeof(legacy));
  const auto& x = in.xsave();
  uint64_t bv = 3 | (in.has_xsave() ? x.xstate_bv() : 0);
  std::memset(xstate.data() + kHeaderAt, 0, xstate.size() - kHeaderAt);
  TRY(fill_component(x.ymmh_space(), kYmm, xstate, bv));
  TRY(fill_component(x.opmask_reg(), kOpmask, xstate, bv));
  TRY(fill_component(x.zmm_upper(), kZmmUpper, xstate, bv));
  TRY(fill_component(x.hi16_zmm(), kHi16Zmm, xstate, bv));
  TRY(fill_component(x.pkru(), kPkru, xstate, bv));
  // Only what was filled may be marked in use.
  uint64_t known = 3;
  for (auto c : {kYmm, kOpmask, kZmmUpper, kHi16Zmm, kPkru})
    if (place_of(c).size && place_of(c).offset + place_of(c).size <= xstate.size()) known |= uint64_t{1} << c;
  bv &= known;
  std::memcpy(xstate.data() + kHeaderAt, &bv, sizeof(bv));
  return {};
}

}  // namespace stasis::tasks
