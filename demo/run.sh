#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The main job in three parts, on a real runc container; called by `./dev demo`.
# STASIS_BUILD is the build directory. Exits non-zero if anything it shows is not true.
set -uo pipefail

id=stasis-demo-$$
new=/$id-new
other=/$id-other
work=$(mktemp -d /tmp/stasis-demo.XXXXXX) || exit 1
bundle=$work/bundle
count=$bundle/rootfs/count
root_pid=      # of the container, when stasis restored it
root_start=    # its start time: a pid alone says little
supervisor=

. "$(dirname "$0")/lib.sh"
hierarchies() { # "NAME MOUNTPOINT": each cgroup hierarchy that is mounted whole
  awk '$4 == "/" { for (i = 7; i <= NF; i++) if ($i == "-") { if ($(i+1) ~ /^cgroup2?$/) print $5 } }' /proc/self/mountinfo
}

kill_restored() {
  alive "$root_pid" "$root_start" && kill -KILL "$root_pid" 2>/dev/null
  for _ in $(seq 100); do alive "$root_pid" "$root_start" || break; sleep 0.05; done
  root_pid=
}

clean_up() {
  [ -n "$root_pid" ] && kill_restored
  [ -n "$supervisor" ] && kill "$supervisor" 2>/dev/null && wait "$supervisor" 2>/dev/null
  runc delete -f "$id" >/dev/null 2>&1
  for dir in $(hierarchies); do
    for name in "$new" "$other" "/$id"; do
      for _ in $(seq 40); do
        [ -d "$dir$name" ] || break
        rmdir "$dir$name" 2>/dev/null || sleep 0.05
      done
      [ -d "$dir$name" ] && { say "left behind: $dir$name"; failed=1; }
    done
  done
}
counter() { tail -n 1 "$count" 2>/dev/null || echo 0; }
# 1, 2, 3, ...: nothing lost, nothing done twice. The last line may be half written.
counter_whole() { head -n -1 "$count" | awk '$1 != NR { exit 1 } END { exit NR < 2 }'; }

tasks() { # number of processes below $1, itself included
  local n=1 child
  for child in $(cat /proc/"$1"/task/*/children 2>/dev/null); do n=$((n + $(tasks "$child"))); done
  echo "$n"
}
tree_pids() {
  local child
  echo "$1"
  for child in $(cat /proc/"$1"/task/*/children 2>/dev/null); do tree_pids "$child"; done
}
pipe_ends() { # descriptors below $1 that are pipes
  local pid
  for pid in $(tree_pids "$1"); do readlink /proc/"$pid"/fd/* 2>/dev/null; done | grep -c '^pipe:'
}
gone() { # process $1 of start time $2 has ended, or does so within five seconds
  for _ in $(seq 100); do alive "$1" "$2" || return 0; sleep 0.05; done
  return 1
}
show_tree() { # the tree below $1, without the short-lived sleeps of the counter
  local pid=$1 indent=$2 child command
  command=$(cat /proc/"$pid"/cmdline 2>/dev/null | tr '\0' ' ' | cut -c1-50)
  case $command in "" | "sleep 0.05 ") return ;; esac
  printf '     %s%s (pid %s)\n' "$indent" "$command" "$pid"
  for child in $(cat /proc/"$pid"/task/*/children 2>/dev/null); do show_tree "$child" "$indent  "; done
}

make_bundle() {
  mkdir -p "$bundle/rootfs"/{bin,proc,sys,dev,tmp} || return
  local busybox applet cgroup_namespace=
  busybox=$(command -v busybox) || return
  cp "$busybox" "$bundle/rootfs/bin/busybox" || return
  for applet in sh sleep cat; do ln -s busybox "$bundle/rootfs/bin/$applet" || return; done
  cat >"$bundle/rootfs/bin/count" <<'SCRIPT'
#!/bin/sh
sleep 100000 &
produce() { n=0; while :; do n=$((n + 1)); echo "$n"; sleep 0.05; done; }
relay() { while read -r n; do echo "$n"; done; }
produce | relay | relay >>/count
SCRIPT
  chmod 755 "$bundle/rootfs/bin/count"
  : >"$count"
  # On a host with v2 only, runc's own default is a cgroup namespace.
  [ -f /sys/fs/cgroup/cgroup.controllers ] && cgroup_namespace=', {"type": "cgroup"}'
  cat >"$bundle/config.json" <<CONFIG
{
  "ociVersion": "1.0.2",
  "process": {
    "terminal": false,
    "user": {"uid": 0, "gid": 0},
    "args": ["/bin/sh", "/bin/count"],
    "env": ["PATH=/bin"],
    "cwd": "/",
    "capabilities": {
      "bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]
    },
    "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
    "noNewPrivileges": true
  },
  "root": {"path": "rootfs", "readonly": false},
  "hostname": "demo",
  "mounts": [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
    {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
    {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
    {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
    {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
    {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}
  ],
  "linux": {
    "cgroupsPath": "/$id",
    "resources": {"devices": [{"allow": false, "access": "rwm"}], "pids": {"limit": 123}},
    "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}$cgroup_namespace],
    "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
    "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
  }
}
CONFIG
}

# A container's stdio is runc's own: a log file of the host's would be outside of the container.
runc_quiet() { runc --log "$work/runc.log" "$@" </dev/null >/dev/null 2>&1 || { cat "$work/runc.log"; return 1; }; }
start_container() { runc_quiet run -d -b "$bundle" "$id"; }
runc_pid() { runc state "$id" 2>/dev/null | sed -n 's/^ *"pid": \([0-9]*\).*/\1/p'; }
runc_status() { runc state "$id" 2>/dev/null | sed -n 's/^ *"status": "\(.*\)".*/\1/p'; }
dropin_checkpoint() { PATH=$build/libexec/stasis:$PATH runc_quiet checkpoint --image-path "$work/i1" --work-path "$work/w1" "$id"; }
dropin_restore() { PATH=$build/libexec/stasis:$PATH runc_quiet restore -d --image-path "$work/i1" --work-path "$work/w1" -b "$bundle" "$id"; }

# Lines "NAME PATH"; the unified hierarchy is called "unified" here.
cgroups_of() { awk -F: '{ print ($2 == "" ? "unified" : $2), $3 }' "/proc/$1/cgroup"; }
has_cpu_v1() { grep -Eq '^[0-9]+:([a-z_,]*,)?cpu(,[a-z_,]*)?:' /proc/self/cgroup; }
want_of() { # where hierarchy $1 has to be after the move
  case ,$1, in *,cpu,* | *,cpuacct,*) say "$other" ;; *) say "$new" ;; esac
}
pids_limit_of() { # of cgroup $1
  local dir
  for dir in /sys/fs/cgroup/pids /sys/fs/cgroup; do
    [ -f "$dir$1/pids.max" ] && { cat "$dir$1/pids.max"; return; }
  done
}

roots=(--cgroup-root "$new")
has_cpu_v1 && roots+=(--cgroup-root "cpuacct,cpu:$other")

restore_detached() {
  "$stasis" restore -D "$work/i2" -W "$work/w2" -o restore.log -v4 --bundle "$bundle" "${roots[@]}" --detach --pidfile "$work/pid2"
}

# ---------------------------------------------------------------------------------------------
needs runc busybox awk sed
mkdir -p "$work"/{w1,w2,w3,i1}

say "$("$stasis" version), $(runc --version | head -n 1), Linux $(uname -r)"
title "A container"
step "make a bundle of busybox-static" make_bundle
step "runc run -d $id" start_container
pid=$(runc_pid)
[ -n "$pid" ] || die "runc does not know its container"
for _ in $(seq 100); do [ "$(tasks "$pid")" -ge 5 ] && break; sleep 0.05; done
show_tree "$pid" ""
check "the counter runs (at $(counter))" counter_moves
check "its processes are joined by pipes" test "$(pipe_ends "$pid")" -ge 4

title "1. Unmodified runc, with stasis as the criu on its PATH"
say "   criu is $(PATH=$build/libexec/stasis:$PATH command -v criu), $("$build/libexec/stasis/criu" --version)"
before=$(counter)
start=$(start_of "$pid")
step "runc checkpoint $id" dropin_checkpoint
check "the processes are gone" gone "$pid" "$start"
at_checkpoint=$(counter)
sleep 0.3
check "the counter stands still" test "$(counter)" = "$at_checkpoint"
step "runc restore -d $id" dropin_restore
pid=$(runc_pid)
check "runc calls it running" test "$(runc_status)" = running
check "the counter goes on" counter_moves
check "and missed nothing" counter_whole
printf '   counter: %s before, %s at the checkpoint, %s now\n' "$before" "$at_checkpoint" "$(counter)"
show_tree "$pid" ""

title "2. stasis checkpoint, and stasis restore into another cgroup"
cgroups_of "$pid" >"$work/before"
before=$(counter)
start=$(start_of "$pid")
step "stasis checkpoint --manage-cgroups $id" \
  "$stasis" checkpoint --manage-cgroups -D "$work/i2" -W "$work/w2" -o dump.log -v4 "$id"
check "the processes are gone" gone "$pid" "$start"
step "runc delete $id" runc_quiet delete "$id"
at_checkpoint=$(counter)
cp "$count" "$work/count.then"
say "   stasis restore -D IMAGES --bundle BUNDLE ${roots[*]} --detach"
step "stasis restore into the new cgroups" restore_detached
root_pid=$(cat "$work/pid2" 2>/dev/null)
root_start=$(start_of "$root_pid")
[ -n "$root_start" ] || die "the restored container is not there"
cgroups_of "$root_pid" >"$work/after"
printf '\n     %-16s %-44s %s\n' hierarchy before after
while read -r name path; do
  after=$(awk -v name="$name" '$1 == name { print $2 }' "$work/after")
  mark=' '
  [ "$after" = "$(want_of "$name")" ] || { mark='  <- NOT where it was sent'; failed=1; }
  printf '     %-16s %-44s %s%s\n' "$name" "$path" "$after" "$mark"
done <"$work/before"
say ""
check "no task is left in the old cgroup" sh -c "! grep -rq ':/$id\$' /proc/[0-9]*/cgroup"
check "the limit of 123 processes came along" test "$(pids_limit_of "$new")" = 123
check "the counter goes on" counter_moves
check "and missed nothing" counter_whole
check "the whole tree is back, with its pipes" test "$(pipe_ends "$root_pid")" -ge 4 -a "$(tasks "$root_pid")" -ge 5
printf '   counter: %s before, %s at the checkpoint, %s now\n' "$before" "$at_checkpoint" "$(counter)"

title "3. Once more, under a supervisor"
step "end the restored container" kill_restored
# The images want the files as they were at the checkpoint.
cp "$work/count.then" "$count"
command=(sleep 86400)
begin=${EPOCHREALTIME/[.,]/}
"$stasis" restore -D "$work/i2" -W "$work/w3" -o restore.log -v4 --bundle "$bundle" "${roots[@]}" \
  --pidfile "$work/pid3" --exec-cmd -- "${command[@]}" >"$work/step.log" 2>&1 </dev/null &
supervisor=$!
for _ in $(seq 600); do
  kill -0 "$supervisor" 2>/dev/null || break
  [ "$(tr '\0' ' ' <"/proc/$supervisor/cmdline" 2>/dev/null)" = "${command[*]} " ] && break
  sleep 0.05
done
printf '   %-62s %10s\n' "stasis restore --exec-cmd -- ${command[*]}" "$(took "$begin")"
root_pid=$(cat "$work/pid3" 2>/dev/null)
root_start=$(start_of "$root_pid")
if [ -z "$root_start" ]; then
  sed 's/^/     | /' "$work/step.log"
  tail -n 15 "$work/w3/restore.log" 2>/dev/null | sed 's/^/     | /'
  die "the restored container is not there"
fi
show_tree "$supervisor" ""
parent=$(sed -n 's/^PPid:[^0-9]*//p' "/proc/$root_pid/status")
printf '   parent of the container (pid %s): pid %s, %s\n' "$root_pid" "$parent" "$(tr '\0' ' ' <"/proc/$parent/cmdline")"
check "${command[0]} is the parent" test "$parent" = "$supervisor" -a "$(cat "/proc/$parent/comm")" = "${command[0]}"
check "and in the process that stasis was started as" test "$supervisor" = "$parent"
check "the counter goes on" counter_moves
check "and missed nothing" counter_whole
step "end it" kill_restored
check "its parent survives it" kill -0 "$supervisor"

the_end
