#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A container of runc's, checkpointed, comes back to life as a container of crun's: unmodified crun makes it from the
# bundle and runs its hooks, stasis turns its first process into the restored tree, and `crun exec|kill|delete` work.
# STASIS_BUILD is the build directory. Exits non-zero if anything it shows is not true.
set -uo pipefail

# crun 1.8 refuses a host whose v2 hierarchy beside v1 has controllers: it is hidden, for this demo only.
if [ -n "$(cat /sys/fs/cgroup/unified/cgroup.controllers 2>/dev/null)" ]; then
  [ -n "${STASIS_DEMO_HIDDEN:-}" ] || STASIS_DEMO_HIDDEN=1 exec unshare -m bash "$0" "$@"
  umount /sys/fs/cgroup/unified && mount -t tmpfs none /sys/fs/cgroup/unified || exit 1
fi

id=stasis-demo-$$
work=$(mktemp -d /tmp/stasis-demo.XXXXXX) || exit 1
. "$(dirname "$0")/lib.sh"
bundle=$work/bundle
images=$work/images
count=$work/shared/count

clean_up() {
  crun delete -f "$id-crun" >/dev/null 2>&1
  runc delete -f "$id" >/dev/null 2>&1
}

counter() { cat "$count" 2>/dev/null || echo 0; }
quiet() { "$@" </dev/null >/dev/null 2>"$work/stderr" || { cat "$work/stderr"; return 1; }; }
start_runc() { runc --log "$work/runc.log" run -d -b "$bundle" "$id" </dev/null >/dev/null 2>&1; }
crun_state() { crun state "$id-crun" 2>/dev/null | sed -n "s/^ *\"$1\": *\"\\{0,1\\}\\([a-z0-9]*\\).*/\\1/p"; }
stopped() { for _ in $(seq 100); do [ "$(crun_state status)" = stopped ] && return 0; sleep 0.05; done; return 1; }

make_bundle() {
  local command='echo kept >/scratch/file; i=0; while :; do i=$((i + 1)); echo $i >/shared/n; mv /shared/n /shared/count; sleep 0.05; done'
  local applet namespace=
  mkdir -p "$bundle/rootfs"/{bin,proc,sys,dev,tmp,scratch,shared} "$work/shared" || return
  cp "$(command -v busybox)" "$bundle/rootfs/bin/busybox" || return
  for applet in sh sleep cat mv ls test; do ln -s busybox "$bundle/rootfs/bin/$applet" || return; done
  [ -f /sys/fs/cgroup/cgroup.controllers ] && namespace=', {"type": "cgroup"}'
  cat >"$bundle/config.json" <<CONFIG
{
  "ociVersion": "1.0.2",
  "process": {
    "user": {"uid": 0, "gid": 0}, "args": ["/bin/sh", "-c", "$command"], "env": ["PATH=/bin"], "cwd": "/",
    "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]},
    "noNewPrivileges": true
  },
  "root": {"path": "rootfs"},
  "hostname": "demo",
  "mounts": [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
    {"destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "size=1m"]},
    {"destination": "/shared", "type": "bind", "source": "../shared", "options": ["bind", "rw"]}
  ],
  "linux": {
    "cgroupsPath": "/$id",
    "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}$namespace],
    "seccomp": {
      "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
      "syscalls": [{"names": ["swapon"], "action": "SCMP_ACT_ERRNO"}]
    }
  }
}
CONFIG
}

# ---------------------------------------------------------------------------------------------
needs runc crun busybox awk sed
mkdir -p "$work/w"
say "$("$stasis" version), $(runc --version | head -n 1), $(crun --version | head -n 1), Linux $(uname -r)"

title "A container of runc"
step "make a bundle of busybox-static" make_bundle
step "runc run -d $id" start_runc
check "the counter runs" counter_moves
step "stasis checkpoint $id" "$stasis" checkpoint -D "$images" -W "$work/w" "$id"
step "runc delete $id" quiet runc delete "$id"
at_checkpoint=$(counter)

title "The same container, made by crun"
say "   stasis restore -D IMAGES --into crun --as $id-crun --bundle BUNDLE --detach"
step "stasis restore --into crun" "$stasis" restore -D "$images" -W "$work/w" --into crun --as "$id-crun" --bundle "$bundle" --detach
crun list | sed 's/^/     /'
check "crun calls it running" test "$(crun_state status)" = running
check "the counter goes on" counter_moves
check "and was at $at_checkpoint" test "$(counter)" -ge "$at_checkpoint"
inside() { crun exec "$id-crun" "$@" </dev/null 2>&1; }
check "crun exec: the files of its tmpfs are there" test "$(inside cat /scratch/file)" = kept
check "crun exec: no more capabilities than the bundle gives" sh -c "crun exec $id-crun cat /proc/self/status </dev/null | grep -q '^CapBnd:.*0000000000000020'"
check "crun exec: under the bundle's seccomp filter" sh -c "crun exec $id-crun cat /proc/self/status </dev/null | grep -q '^Seccomp:.*2'"
check "nothing of stasis is left in it" sh -c "! grep -q stasis/ /proc/$(crun_state pid)/mountinfo && ! crun exec $id-crun test -e /dev/.stasis </dev/null"
step "crun kill $id-crun KILL" quiet crun kill "$id-crun" KILL
check "crun calls it stopped" stopped
step "crun delete $id-crun" quiet crun delete "$id-crun"
check "no process of it is left" sh -c "! grep -q ':/$id\$' /proc/[0-9]*/cgroup"

the_end
