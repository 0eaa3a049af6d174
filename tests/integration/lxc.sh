#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Unmodified LXC with our drop-in as the criu it finds on PATH. Everything lives in an lxcpath of the case.
. "$(dirname "$0")/lib.sh"

LOOP='i=0; while :; do i=$((i+1)); echo $i >/files/n.new; mv /files/n.new /files/n; sleep 0.02; done'
BASE=/usr/share/lxc/config/common.conf

skip() { echo "skip: $*"; exit 0; }
# LXC's monitor keeps the standard error of the command that made it: never a pipe.
lxc() {
  local tool=$1
  shift
  timeout "$HANG" "lxc-$tool" -P "$CASE/lxc" -n "$ID" "$@" </dev/null >"$CASE/$tool.out" 2>"$CASE/$tool.err"
}
said() { echo "lxc-$1: $(tail -n 2 "$CASE/$1.err" | tr '\n' ' ')$(explain)"; }
state() { lxc info -sH; cat "$CASE/info.out"; }
init_pid() { lxc info -pH; cat "$CASE/info.out"; }
is_state() { [[ $(state) == "$1" ]]; }
inside() { lxc attach -- /bin/sh -c "$1" && cat "$CASE/attach.out"; }

# make_container INIT-SCRIPT [CONFIG-LINE...]: busybox, Debian's default configuration without a bridge.
make_container() {
  command -v lxc-start >/dev/null && command -v lxc-checkpoint >/dev/null || skip "LXC is not installed"
  [[ -f $BASE ]] || skip "no $BASE"
  local script=$1 root=$CASE/lxc/$ID/rootfs name
  shift
  mkdir -p "$root"/{bin,sbin,dev,proc,sys,tmp,etc,root,run,files} || fail "cannot make a rootfs"
  [[ -d $FILES ]] || ln -s "$root/files" "$FILES"
  cp "$(command -v busybox)" "$root/bin/busybox"
  for name in sh mv cat sleep echo ps ls tty stty setsid mkdir kill cut readlink; do ln -sf busybox "$root/bin/$name"; done
  printf '#!/bin/sh\n%s\n' "$script" >"$root/sbin/init"
  chmod 755 "$root/sbin/init"
  write_config "lxc.include = $BASE" "$@"
}
# LXC cannot generate a profile where the kernel has AppArmor and the host has no parser for it.
apparmor() { [[ $(cat /sys/module/apparmor/parameters/enabled 2>/dev/null) == Y ]]; }
profile() { apparmor && ! command -v apparmor_parser >/dev/null && echo unconfined || echo generated; }
write_config() {
  printf '%s\n' "$@" "lxc.uts.name = $ID" "lxc.arch = linux64" "lxc.rootfs.path = dir:$CASE/lxc/$ID/rootfs" \
    "lxc.apparmor.profile = $(profile)" "lxc.apparmor.allow_nesting = 1" "lxc.init.cmd = /sbin/init $ID" >"$CASE/lxc/$ID/config"
  grep -q '^lxc.net' "$CASE/lxc/$ID/config" || echo 'lxc.net.0.type = empty' >>"$CASE/lxc/$ID/config"
  # A monitor of LXC 5.0.2 that has restored a container dies of its first command unless lxc.tty.max is 0 there.
  { cat "$CASE/lxc/$ID/config"; echo 'lxc.tty.max = 0'; } >"$CASE/restore.conf"
}
lxc_start() {
  echo "$ID" >>"$CASE/lxc-containers"
  lxc start || fail "$(said start)"
  until_true "the container to count" test -s "$FILES/n"
}
lxc_dump() { lxc checkpoint -D "$CASE/images" -v "$@" || fail "$(said checkpoint)"; }
lxc_restore() {
  lxc checkpoint -r -D "$CASE/images" -v --rcfile="$CASE/restore.conf" "$@" || fail "$(said checkpoint)"
  is_state RUNNING || fail "after the restore LXC says $(state)"
}
round_trip() {
  local before
  lxc_dump -s
  until_true "LXC to see it stopped" is_state STOPPED
  until_true "the tasks to go" _no_tasks
  before=$(count)
  lxc_restore
  counts_on "$before"
}
# LXC 5.0.2 finds no freezer for a container that it has restored where all cgroups are v2, and then
# calls no engine: what it has restored once it cannot checkpoint again.
only_v2() { [[ -e /sys/fs/cgroup/cgroup.controllers ]]; }
rounds() { only_v2 && echo 1 || seq "$1"; }
lxc_stop() {
  lxc stop -k || fail "$(said stop)"
  until_true "the container to stop" is_state STOPPED
  until_true "the tasks to go" _no_tasks
  until_true "the keeper of terminals to go" _no_keeper
}
_no_keeper() { ! grep -lsxzF "$CASE/images" /proc/[0-9]*/cmdline >/dev/null; }
stop_left() {
  local pid
  if [[ -f $CASE/lxc-containers ]]; then lxc unfreeze; lxc stop -k; fi
  for pid in $(grep -lsF "$CASE/lxc" /proc/[0-9]*/cmdline | cut -d/ -f3); do
    [[ $pid == "$BASHPID" || $pid == "$$" ]] || kill -KILL "$pid" 2>/dev/null
  done
} 2>/dev/null

case_stop_and_restore() {
  at_exit stop_left
  make_container "$LOOP"
  lxc_start
  round_trip
  [[ $(inside 'read -r pid rest </proc/1/stat; echo $pid; cat /proc/sys/kernel/hostname') == "1
$ID" ]] || fail "lxc-attach sees another container: $(said attach)"
  apparmor || grep -q "apparmor:generated.*ignoring" "$CASE/images/restore.log" || fail "no word about the AppArmor profile"
  lxc freeze || fail "$(said freeze)"
  is_state FROZEN || fail "after lxc-freeze it is $(state)"
  lxc unfreeze || fail "$(said unfreeze)"
  counts_on
  lxc_stop
  [[ -z $(mounts_left) ]] || fail "mounts left: $(mounts_left | tr '\n' ' ')"
}

# Told to stop, as by lxc-stop, it stops by itself.
case_clean_stop() {
  at_exit stop_left
  make_container "trap 'echo bye >/files/bye; exit 0' PWR; $LOOP"
  lxc_start
  round_trip
  lxc stop -t 30 || fail "$(said stop)"
  is_state STOPPED || fail "LXC says $(state)"
  [[ $(cat "$FILES/bye" 2>/dev/null) == bye ]] || fail "it was killed instead"
  until_true "the keeper of terminals to go" _no_keeper
}

case_leave_running() {
  at_exit stop_left
  make_container "$LOOP"
  lxc_start
  local pid
  pid=$(init_pid)
  lxc_dump
  [[ $(init_pid) == "$pid" ]] || fail "the container has another pid"
  counts_on
  mv "$CASE/images" "$CASE/images1"
  lxc_dump -s
  until_true "the tasks to go" _no_tasks
  lxc_restore
  counts_on
  lxc_stop
}

case_ten_times() {
  at_exit stop_left
  ! only_v2 || skip "LXC cannot checkpoint again what it has restored where all cgroups are v2: it finds no freezer"
  make_container "$LOOP"
  lxc_start
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    rm -rf "$CASE/images"
    round_trip
  done
  lxc_stop
}

# LXC makes them in the container's devpts and gives nothing on restore: they live on, with all that is open.
case_terminals() {
  at_exit stop_left
  make_container "setsid /bin/sh -c 'exec 3<>/dev/tty2; stty rows 33 cols 44 <&3; exec sleep 100000' $ID & exec >/dev/console; $LOOP"
  lxc_start
  until_true "terminal 2 to be set" _size_of_tty2
  round_trip
  _size_of_tty2 || fail "terminal 2 has lost its size: $(inside 'stty size </dev/tty2')"
  grep -q 'no other end for 5 terminals.*ignoring' "$CASE/images/restore.log" || fail "no warning about the terminals"
  inside 'i=0; while [ $i -lt 3000 ]; do echo "a line that somebody has to take away"; i=$((i+1)); done >/dev/tty2' >/dev/null ||
    fail "nobody reads what is written to terminal 2"
  until_true "the console and terminal 4 to take a line (keepers: $(pgrep -x stasis-ttys | tr '\n' ' '))" _terminals_live
  if ! only_v2; then
    rm -rf "$CASE/images"
    round_trip
    _size_of_tty2 || fail "terminal 2 has lost its size the second time"
  fi
  lxc_stop
}
_terminals_live() { inside 'echo hello >/dev/console && echo hello >/dev/tty4' >/dev/null; }
_size_of_tty2() { [[ $(inside 'stty size </dev/tty2') == "33 44" ]]; }

# Without a devpts of the container the console is a terminal of the host, which LXC gives again on restore.
case_console_of_the_host() {
  at_exit stop_left
  make_container "exec </dev/console >/dev/console 2>&1; stty rows 22 cols 55; $LOOP"
  write_config 'lxc.mount.auto = cgroup:mixed proc:mixed sys:mixed'
  sed -i "s/i=\$((i+1));/& echo line \$i;/" "$CASE/lxc/$ID/rootfs/sbin/init"
  lxc_start
  local init monitor
  for _ in $(rounds 3); do
    rm -rf "$CASE/images"
    round_trip
    init=$(init_pid)
    monitor=$(awk '/^PPid/ {print $2}' "/proc/$init/status")
    [[ $(readlink "/proc/$init/fd/1") == /dev/console ]] || fail "standard output is $(readlink "/proc/$init/fd/1")"
    [[ $(stat -Lc %d:%t:%T "/proc/$init/fd/1") == "$(stat -c %d "/dev/pts"):88:$(sed -n 's/^tty-index:\t//p' "/proc/$monitor"/fdinfo/* 2>/dev/null)" ]] ||
      fail "the console is not the terminal whose other end LXC holds"
    [[ $(inside 'stty size </dev/console') == "22 55" ]] || fail "the console has lost its size"
  done
  lxc_stop
}

case_net_none() {
  at_exit stop_left
  make_container "$LOOP" 'lxc.net.0.type = none'
  lxc_start
  [[ $(readlink "/proc/$(init_pid)/ns/net") == "$(readlink /proc/self/ns/net)" ]] || fail "the network is not the host's"
  round_trip
  [[ $(readlink "/proc/$(init_pid)/ns/net") == "$(readlink /proc/self/ns/net)" ]] || fail "it is not the host's network any more"
  lxc_stop
}

case_net_empty() {
  at_exit stop_left
  make_container "$LOOP"
  lxc_start
  round_trip
  [[ $(readlink "/proc/$(init_pid)/ns/net") != "$(readlink /proc/self/ns/net)" ]] || fail "the container has the host's network"
  [[ $(inside 'cat /proc/net/dev' | grep -c :) == 1 ]] || fail "there is more than lo"
  lxc_stop
}

# LXC takes lxc.payload.NAME-1 when the old one is still there.
case_another_cgroup() {
  at_exit stop_left
  make_container "sh -c 'while :; do sleep 1; done' $ID & $LOOP"
  lxc_start
  lxc_dump -s
  until_true "LXC to see it stopped" is_state STOPPED
  until_true "the tasks to go" _no_tasks
  until_true "the old cgroups to go" _no_cgroups
  local dir pid checked=0
  for dir in /sys/fs/cgroup /sys/fs/cgroup/*; do
    [[ $dir != /sys/fs/cgroup ]] && only_v2 || [[ ! -f $dir/cgroup.procs ]] || mkdir "$dir/lxc.payload.$ID"
  done
  lxc_restore
  counts_on
  for pid in $(tasks_left); do
    [[ $(readlink "/proc/$pid/ns/pid") != "$(readlink /proc/self/ns/pid)" ]] || continue
    ! grep "lxc.payload" "/proc/$pid/cgroup" | grep -qv "/lxc.payload.$ID-1\$" || fail "pid $pid is elsewhere: $(tr '\n' ' ' <"/proc/$pid/cgroup")"
    ((++checked))
  done
  ((checked >= 2)) || fail "$checked tasks are there"
  lxc freeze && is_state FROZEN && lxc unfreeze || fail "it cannot be frozen there: $(said freeze)"
  counts_on
  lxc_stop
}

_no_cgroups() { [[ -z $(cgroups_left) ]]; }

# A shell on the console, its own session: the terminal controls it before and after.
case_shell_on_the_console() {
  at_exit stop_left
  make_container "setsid -c /bin/sh -c 'exec 7<>/dev/tty; trap \"echo here >&7 && echo heard >/files/heard\" USR1; sleep 100000 & echo \$\$ >/files/shell; while :; do sleep 0.1; done' $ID </dev/console >/dev/console 2>&1 & $LOOP"
  lxc_start
  until_true "the shell" test -s "$FILES/shell"
  local shell before after
  shell=$(<"$FILES/shell")
  before=$(inside "cut -d' ' -f1,4-8 /proc/$shell/stat")
  [[ $(cut -d' ' -f5 <<<"$before") != 0 ]] || fail "the shell has no terminal to begin with: $before"
  round_trip
  after=$(inside "cut -d' ' -f1,4-8 /proc/$shell/stat")
  [[ $before == "$after" ]] || fail "pid ppid pgrp session tty tpgid was '$before', is '$after'"
  [[ $(inside "readlink /proc/$shell/fd/7") == /dev/tty ]] || fail "/dev/tty is $(inside "readlink /proc/$shell/fd/7")"
  inside "kill -USR1 $shell" >/dev/null || fail "$(said attach)"
  until_true "the shell to write to /dev/tty" test -s "$FILES/heard"
  lxc_stop
}

case_refused_leaves_it_alone() {
  at_exit stop_left
  make_container "sh -c 'sleep 1 & exec 9</proc/\$!/stat; wait; echo >/files/held; exec sleep 100000' $ID & $LOOP"
  lxc_start
  until_true "the file of a process that has ended" test -e "$FILES/held"
  ! lxc checkpoint -D "$CASE/images" -s || fail "a file of a process that has ended was taken"
  grep -q 'STASIS-E-UNSUPPORTED-FILE' "$CASE/images/dump.log" || fail "no STASIS-E-UNSUPPORTED-FILE in the log"
  is_state RUNNING || fail "LXC says $(state)"
  counts_on
  lxc_stop
}

# A Debian userland with a script for an init. The tree is made once and kept in the cache.
case_debian() {
  at_exit stop_left
  command -v debootstrap >/dev/null || skip "debootstrap is not installed"
  local cache=/var/cache/stasis-tests/debian-minbase
  if [[ ! -f $cache.tar ]]; then
    mkdir -p "${cache%/*}"
    timeout 400 debootstrap --variant=minbase bookworm "$CASE/debian" >"$CASE/debootstrap.out" 2>&1 ||
      skip "debootstrap: $(tail -n 1 "$CASE/debootstrap.out")"
    tar -C "$CASE/debian" --exclude='./var/cache/apt/*' --exclude='./dev/*' -cf "$cache.$$" . && mv "$cache.$$" "$cache.tar"
    rm -rf "$CASE/debian"
  fi
  make_container "$LOOP"
  local root=$CASE/lxc/$ID/rootfs
  rm -rf "$root" && mkdir -p "$root/files" && tar -C "$root" -xf "$cache.tar" || fail "cannot unpack the userland"
  cat >"$root/sbin/init" <<INIT
#!/bin/bash
# $ID
mount -t tmpfs none /run
echo kept >/run/file
bash -c 'trap "echo got >/files/usr1" USR1; echo \$\$ >/files/child; while :; do sleep 0.1; done' $ID &
cat /run/file - <<<more >/dev/null
(coproc tr a-z A-Z; while :; do sleep 1; done) &
declare -A words=([one]=1 [two]=2)
i=0
while :; do i=\$((i+1)); echo "\$i \${words[two]}" >/files/n.new; mv /files/n.new /files/n; sleep 0.05; done
INIT
  chmod 755 "$root/sbin/init"
  count() { cut -d' ' -f1 "$FILES/n"; }
  lxc_start
  until_true "the child" test -s "$FILES/child"
  for _ in $(rounds 2); do
    rm -rf "$CASE/images" "$FILES/usr1"
    round_trip
    [[ $(cut -d' ' -f2 "$FILES/n") == 2 ]] || fail "the shell has lost its words"
    [[ $(lxc attach -- /bin/cat /run/file && cat "$CASE/attach.out") == kept ]] || fail "the tmpfs has lost its file"
    lxc attach -- /bin/bash -c "kill -USR1 $(<"$FILES/child")" || fail "$(said attach)"
    until_true "the child to take the signal" test -s "$FILES/usr1"
  done
  lxc_stop
}

# Devices of the host have names with the prefix $NET, and go with the case.
devices_gone() {
  local left
  for left in $(ip -o link show | sed -n "s/^[0-9]*: \($NET[^:@]*\).*/\1/p"); do ip link del "$left"; done
} 2>/dev/null
net_case() {
  command -v ip >/dev/null || skip "iproute2 is not installed"
  NET=st$(($$ % 100000))l$((${ID##*-} % 100)) SUBNET=10.$((100 + $$ % 90)).$((${ID##*-} % 250))
  at_exit 'devices_gone; stop_left'
}
answers() { # ADDRESS: the counter, over HTTP
  /usr/bin/python3 -c 'import sys, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
int(opener.open(f"http://{sys.argv[1]}:8080/n", timeout=5).read())' "$1" >/dev/null 2>&1
}
address_of() { nsenter -t "$(init_pid)" -n ip -o -4 addr show dev eth0 | grep -o "inet [0-9./]*"; }

case_net_veth() {
  net_case
  ip link add "${NET}b" type bridge || skip "no bridge in this kernel"
  ip addr add "$SUBNET.1/24" dev "${NET}b" && ip link set "${NET}b" up
  make_container "busybox httpd -p 8080 -h /files; $LOOP" 'lxc.net.0.type = veth' "lxc.net.0.link = ${NET}b" 'lxc.net.0.name = eth0' \
    'lxc.net.0.flags = up' "lxc.net.0.veth.pair = ${NET}v" "lxc.net.0.ipv4.address = $SUBNET.2/24" "lxc.net.0.ipv4.gateway = $SUBNET.1"
  lxc_start
  until_true "an answer" answers "$SUBNET.2"
  for _ in $(rounds 2); do
    rm -rf "$CASE/images"
    round_trip
    until_true "an answer after the restore" answers "$SUBNET.2"
    [[ $(nsenter -t "$(init_pid)" -n ip route) == "default via $SUBNET.1 dev eth0"* ]] || fail "the route is gone"
  done
  lxc_stop
}

case_net_macvlan() {
  net_case
  ip link add "${NET}p" type dummy || skip "no dummy device in this kernel"
  ip link set "${NET}p" up
  make_container "busybox httpd -p 8080 -h /files; $LOOP" 'lxc.net.0.type = macvlan' 'lxc.net.0.macvlan.mode = bridge' "lxc.net.0.link = ${NET}p" \
    'lxc.net.0.name = eth0' 'lxc.net.0.flags = up' "lxc.net.0.ipv4.address = $SUBNET.2/24"
  lxc_start
  [[ $(address_of) == "inet $SUBNET.2/24" ]] || fail "no address to begin with: $(address_of)"
  round_trip
  [[ $(address_of) == "inet $SUBNET.2/24" ]] || fail "the address is $(address_of)"
  [[ $(nsenter -t "$(init_pid)" -n ip -d link show eth0) == *"macvlan mode bridge"* ]] || fail "eth0 is no macvlan any more"
  # Another macvlan of the same parent reaches the server.
  ip link add link "${NET}p" name "${NET}m" type macvlan mode bridge && ip addr add "$SUBNET.3/24" dev "${NET}m" && ip link set "${NET}m" up
  until_true "an answer" answers "$SUBNET.2"
  lxc_stop
}

# Without LXC: a monitor of ours is the parent, stops the container as LXC would, and says how it ended.
case_supervisor_is_the_monitor() {
  at_exit stop_left
  make_container "trap 'echo bye >/files/bye; exit 5' PWR; $LOOP"
  lxc_start
  must stasis checkpoint --runtime lxc --runtime-root "$CASE/lxc" "$ID" -D "$CASE/images" --work-dir "$CASE" -o dump.log -v4
  until_true "LXC to see it stopped" is_state STOPPED
  until_true "the tasks to go" _no_tasks
  stasis restore -D "$CASE/images" --work-dir "$CASE" -o restore.log -v4 --bundle "$CASE/lxc/$ID" --as "$ID-again" --pidfile "$CASE/pid" \
    --exec-cmd -- stasis supervise --stop-signal SIGPWR --kill-after 30 --status-file "$CASE/status" </dev/null >"$CASE/said" 2>&1 &
  local supervisor=$! init
  echo $supervisor >>"$CASE/pids"
  until_true "the restore" test -s "$CASE/pid"
  init=$(<"$CASE/pid")
  echo "$init" >>"$CASE/pids"
  counts_on
  until_true "the supervisor" grep -qz supervise "/proc/$supervisor/cmdline"
  [[ $(awk '/^PPid/ {print $2}' "/proc/$init/status") == "$supervisor" ]] || fail "the supervisor is not the parent"
  ! grep -qv "/lxc.payload.$ID-again\$\|:/\$" "/proc/$init/cgroup" || fail "it is in $(tr '\n' ' ' <"/proc/$init/cgroup")"
  kill -TERM "$supervisor"
  local status=0
  wait "$supervisor" || status=$?
  ((status == 5)) || fail "the supervisor ended with $status: $(cat "$CASE/said")"
  [[ $(<"$CASE/status") == 5 && $(<"$FILES/bye") == bye ]] || fail "the container was not stopped cleanly"
}

run_cases
