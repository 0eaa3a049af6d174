#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# An LXC container, dumped and restored by unmodified lxc-checkpoint with stasis as the criu it finds.
# STASIS_BUILD is the build directory. Exits non-zero if anything it shows is not true.
set -uo pipefail

id=stasis-demo-$$
work=$(mktemp -d /tmp/stasis-demo.XXXXXX) || exit 1
. "$(dirname "$0")/lib.sh"
root=$work/lxc/$id/rootfs
count=$root/files/n
export PATH=$build/libexec/stasis:$PATH LC_ALL=C

# LXC's monitor keeps the standard error of the command that made it: never a terminal or a pipe of ours.
lxc() {
  local tool=$1 rc=0
  shift
  timeout 60 "lxc-$tool" -P "$work/lxc" -n "$id" "$@" </dev/null >"$work/$tool.out" 2>"$work/$tool.err" || rc=$?
  ((rc == 0)) || cat "$work/$tool.err"
  return $rc
}
clean_up() {
  lxc unfreeze
  lxc stop -k
  for _ in $(seq 100); do grep -qsF "$work/lxc" /proc/[0-9]*/cmdline || break; sleep 0.05; done
  if grep -qsF "$work" /proc/self/mountinfo; then say "left behind: mounts below $work"; failed=1; fi
} >/dev/null 2>&1

state() { lxc info -sH && cat "$work/info.out"; }
is_state() { for _ in $(seq 100); do [ "$(state)" = "$1" ] && return 0; sleep 0.05; done; return 1; }
inside() { lxc attach -- /bin/sh -c "$1" && cat "$work/attach.out"; }
counter() { cat "$count" 2>/dev/null || echo 0; }
moves() { local from=${1:-$(counter)}; for _ in $(seq 100); do [ "$(counter)" -gt "$from" ] && return 0; sleep 0.05; done; return 1; }
equal() { [ "$1" = "$2" ]; }
inits() { grep -lszxF "$id" /proc/[0-9]*/cmdline 2>/dev/null; }

needs lxc-start lxc-checkpoint busybox
mkdir -p "$root"/{bin,sbin,dev,proc,sys,tmp,etc,run,files} && chmod 755 "$work"
cp "$(command -v busybox)" "$root/bin/busybox" || die "no busybox"
for name in sh mv cat sleep stty setsid echo ls; do ln -sf busybox "$root/bin/$name"; done
cat >"$root/sbin/init" <<'INIT'
#!/bin/sh
setsid -c sh -c 'stty rows 33 cols 44; sleep 100000 & wait' </dev/tty1 >/dev/tty1 2>&1 &
i=0; while :; do i=$((i+1)); echo $i >/files/n.new; mv /files/n.new /files/n; sleep 0.02; done
INIT
chmod 755 "$root/sbin/init"
cat >"$work/lxc/$id/config" <<CONFIG
lxc.include = /usr/share/lxc/config/common.conf
lxc.arch = linux64
lxc.uts.name = demo
lxc.rootfs.path = dir:$root
lxc.net.0.type = empty
lxc.apparmor.profile = generated
lxc.init.cmd = /sbin/init $id
CONFIG
# A monitor of LXC 5.0.2 that has restored a container dies of its first command unless this is 0.
{ cat "$work/lxc/$id/config"; echo 'lxc.tty.max = 0'; } >"$work/restore.conf"

title "Debian's default LXC configuration: a console, four terminals, a session on the first"
say "   $(lxc-checkpoint --version) of LXC; criu is $(command -v criu), $(criu --version)"
step "lxc-start" lxc start
check "it counts" moves 0
for _ in $(seq 100); do [ "$(inside 'stty size </dev/tty1')" = "33 44" ] && break; sleep 0.05; done

title "Checkpoint it while it runs on"
step "lxc-checkpoint -D DIR" lxc checkpoint -D "$work/running"
check "it counts on" moves
check "LXC says it runs" is_state RUNNING

for round in 1 2 3; do
  title "Checkpoint and stop, restore: round $round"
  step "lxc-checkpoint -s -D DIR" lxc checkpoint -s -D "$work/images$round"
  check "LXC says it is stopped" is_state STOPPED
  check "none of its tasks is left" equal "$(inits)" ""
  before=$(counter)
  say "   the counter is at $before; the images take $(du -sk "$work/images$round" | cut -f1) KiB"
  step "lxc-checkpoint -r -D DIR" lxc checkpoint -r -D "$work/images$round" -v --rcfile="$work/restore.conf"
  sed -n 's/^.*Warn */   the log says: /p' "$work/images$round/restore.log"
  check "LXC says it runs" is_state RUNNING
  check "the counter goes on from $before" moves "$before"
  check "its init is pid 1 and its name is demo" equal "$(inside 'read -r pid rest </proc/1/stat; echo $pid; cat /proc/sys/kernel/hostname')" "1
demo"
  check "terminal 1 has kept its size" equal "$(inside 'stty size </dev/tty1')" "33 44"
done

title "What LXC does with a container, it does with this one"
step "lxc-freeze" lxc freeze
check "LXC says it is frozen" is_state FROZEN
before=$(counter)
sleep 0.2
check "the counter stands still" equal "$(counter)" "$before"
step "lxc-unfreeze" lxc unfreeze
check "it counts on" moves
step "lxc-stop -k" lxc stop -k
check "LXC says it is stopped" is_state STOPPED
check "none of its tasks is left" equal "$(inits)" ""

the_end
