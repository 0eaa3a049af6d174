#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Control groups as a user sees them: namespaces, new places, limits, and that nobody else's are touched.
. "$(dirname "$0")/lib.sh"

# Every control group of the host with its limits, but those of this case. Counters change by themselves.
everybody_elses() {
  find /sys/fs/cgroup -type d ! -name "*$ID*" 2>/dev/null | sort
  find /sys/fs/cgroup -maxdepth 3 -type f ! -path "*$ID*" \( -name '*.max' -o -name 'memory.limit_in_bytes' -o -name 'cpu.shares' -o -name 'cpu.weight' \
    -o -name 'freezer.state' -o -name 'cgroup.subtree_control' -o -name 'cpuset.cpus' -o -name 'notify_on_release' \) -exec grep -H . {} + 2>/dev/null | sort
}

only_v2() { [[ -e /sys/fs/cgroup/cgroup.controllers ]]; }

# In its cgroup namespace a container sees itself at / before and after, wherever it lives.
case_namespace_root_is_the_new_place() {
  mkdir -p "$CASE/work"
  make_bundle --cgroup-namespace "while :; do cat /proc/self/cgroup >/files/seen.new; mv /files/seen.new /files/seen; echo \$((++i)) >/files/n; sleep 0.02; done"
  start
  local before
  before=$(<"$FILES/seen")
  [[ $before == *:/* ]] && ! grep -q "$ID" <<<"$before" || fail "the container sees $before"
  local programs
  ! only_v2 || programs=$(/usr/bin/python3 "$SUPPORT/device_filter.py" "/sys/fs/cgroup/$ID")
  take
  rm -f "$FILES/seen"
  bring --bundle "$BUNDLE" --cgroup-root "/$ID-new/deep"
  until_true "the container to look" test -s "$FILES/seen"
  [[ $(<"$FILES/seen") == "$before" ]] || fail "it saw $(tr '\n' ' ' <<<"$before") and sees $(tr '\n' ' ' <"$FILES/seen")"
  grep -q ":/$ID-new/deep" "/proc/$PID/cgroup" || fail "it lives in $(tr '\n' ' ' <"/proc/$PID/cgroup")"
  ! only_v2 || ((programs > 0 && $(/usr/bin/python3 "$SUPPORT/device_filter.py" "/sys/fs/cgroup/$ID-new/deep") == programs)) ||
    fail "it had $programs device filters and has others now"
}

# Groups below the container's own come along, with who is in them.
case_groups_inside() {
  mkdir -p "$CASE/work"
  make_bundle "sleep 100000 & $COUNTER"
  start
  local sleeper dir limit=pids.max name=pids
  _sleeper() { sleeper=$(pgrep -P "$(pid_of)" -x -f 'sleep 100000'); }
  until_true "the background job" _sleeper
  dir=/sys/fs/cgroup/pids/$ID
  # A v2 group with processes gives no controllers to groups below it.
  ! only_v2 || dir=/sys/fs/cgroup/$ID limit=cgroup.max.depth name=
  mkdir "$dir/inner"
  echo 55 >"$dir/inner/$limit"
  echo "$sleeper" >"$dir/inner/cgroup.procs"
  take
  bring --bundle "$BUNDLE" --cgroup-root "/$ID-new"
  counts_on
  _sleeper_again() { sleeper=$(pgrep -P "$PID" -x -f 'sleep 100000'); }
  until_true "the background job again" _sleeper_again
  grep -q "$name:/$ID-new/inner$" "/proc/$sleeper/cgroup" || fail "the job is in $(grep "$name:" "/proc/$sleeper/cgroup")"
  grep -q "$name:/$ID-new$" "/proc/$PID/cgroup" || fail "the root is in $(grep "$name:" "/proc/$PID/cgroup")"
  [[ $(<"${dir%/*}/$ID-new/inner/$limit") == 55 ]]
  rmdir "$dir/inner" "$dir" 2>/dev/null || true
}

# A task that sits in / owns no control group. Neither its checkpoint nor its restore may look at the host's.
case_a_task_in_the_host_root() {
  mkdir -p "$CASE/work" "$CASE/images"
  local before pid
  (echo $BASHPID >"$CASE/started"
    for file in /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/cgroup.procs; do [[ ! -e $file ]] || echo $BASHPID >"$file"; done
    exec setsid sleep 31415) </dev/null >/dev/null 2>&1 &
  until_true "the task" test -s "$CASE/started"
  pid=$(<"$CASE/started")
  echo "$pid" >>"$CASE/pids"
  _sleeps() { [[ $(tr '\0' ' ' <"/proc/$pid/cmdline") == 'sleep 31415 ' ]]; }
  until_true "the task to be itself" _sleeps
  before=$(everybody_elses)
  must criu dump -t "$pid" -D "$CASE/images" -W "$CASE/work" -o dump.log --manage-cgroups=full --shell-job
  crit show "$CASE/images/cgroup.img" >"$CASE/cgroup.json"
  ! grep -q dir_name "$CASE/cgroup.json" || fail "the host's groups are in the image: $(grep -m1 dir_name "$CASE/cgroup.json")"
  wait "$pid" 2>/dev/null || true
  must criu restore -d -D "$CASE/images" -W "$CASE/work" -o restore.log --manage-cgroups=full --shell-job --pidfile pid
  _sleeps || fail "the task is not back"
  [[ $(everybody_elses) == "$before" ]] || fail "the host's control groups changed: $(diff <(echo "$before") <(everybody_elses) | head -n 3)"
}

case_neighbours_are_left_alone() {
  mkdir -p "$CASE/work"
  make_bundle --pids 66
  start
  local before
  take
  before=$(everybody_elses)
  bring --bundle "$BUNDLE" --cgroup-root "/$ID-new" --manage-cgroups=full
  counts_on
  [[ $(everybody_elses) == "$before" ]] || fail "others' control groups changed: $(diff <(echo "$before") <(everybody_elses) | head -n 3)"
  [[ $(cat "/sys/fs/cgroup/$ID-new/pids.max" "/sys/fs/cgroup/pids/$ID-new/pids.max" 2>/dev/null) == 66 ]] || fail "the limit has not come along"
}

# Where all controllers are in one hierarchy, roots must not disagree, and those of v1 do not exist.
case_controller_roots_on_v2() {
  only_v2 || { echo "skip: this machine has v1 hierarchies"; return 0; }
  mkdir -p "$CASE/work"
  make_bundle --pids 66
  start
  take
  must_fail CGROUP-ROOT stasis restore -D "$CASE/images" --bundle "$BUNDLE" --detach --cgroup-root "memory:/$ID-m" --cgroup-root "cpu:/$ID-c"
  must_fail CGROUP-ROOT stasis restore -D "$CASE/images" --bundle "$BUNDLE" --detach --cgroup-root "/$ID-n" --cgroup-root "cpuacct:/$ID-c"
  [[ -z $(cgroups_left) ]] || fail "cgroups were made: $(cgroups_left)"
  bring --bundle "$BUNDLE" --cgroup-root "/$ID-n" --cgroup-root "memory,cpu:/$ID-m"
  counts_on
  [[ $(<"/proc/$PID/cgroup") == "0::/$ID-m" ]] || fail "it lives in $(<"/proc/$PID/cgroup")"
  [[ $(<"/sys/fs/cgroup/$ID-m/pids.max") == 66 ]] || fail "the limit has not come along"
}

# A cgroup of the v2 hierarchy says by a BPF program which devices may be used: it comes along, and is not made twice.
case_device_filter() {
  local top=/sys/fs/cgroup
  [[ -e $top/cgroup.controllers ]] || top=/sys/fs/cgroup/unified
  [[ -e $top/cgroup.controllers ]] || { echo "skip: there is no cgroup v2 hierarchy"; return 0; }
  mkdir -p "$CASE/work" "$CASE/images" "$FILES" "$top/$ID"
  local tool="/usr/bin/python3 $SUPPORT/device_filter.py" status=0 sees
  $tool "$top/$ID" 1 5 2>"$CASE/said" || status=$?
  ((status != 77)) || { echo "skip: $(<"$CASE/said")"; return 0; }
  ((status == 0)) || fail "no filter: $(<"$CASE/said")"
  (echo $BASHPID >"$top/$ID/cgroup.procs"
    # No children: their zombies could hold its session. One file for good: the images are restored twice.
    exec setsid /usr/bin/python3 -c 'import os, sys, time
os.closerange(3, 4096)
fd = os.open(sys.argv[2], os.O_RDWR | os.O_CREAT)
while True:
    try:
        os.close(os.open("/dev/zero", os.O_RDONLY))
        word = b"yes"
    except PermissionError:
        word = b"no "
    os.pwrite(fd, word, 0)
    time.sleep(0.02)' "$ID" "$FILES/n") </dev/null >/dev/null 2>&1 &
  PID=$!
  echo "$PID" >>"$CASE/pids"
  _sees() { [[ $(cat "$FILES/n" 2>/dev/null) == "$1"* ]]; }
  until_true "the process to look at the device" _sees no
  must criu dump -t "$PID" -D "$CASE/images" -W "$CASE/work" -o dump.log --manage-cgroups
  wait "$PID" 2>/dev/null || true
  until_true "the cgroup to be empty" rmdir "$top/$ID"
  must criu restore -d -D "$CASE/images" -W "$CASE/work" -o restore.log --manage-cgroups --cgroup-root "/$ID-new"
  : >"$FILES/n"
  until_true "the process to look again" test -s "$FILES/n"
  _sees no || fail "the device can be opened after the restore"
  [[ $($tool "$top/$ID-new") == 1 ]] || fail "there are $($tool "$top/$ID-new") programs"
  # A directory that was there has what its maker wants.
  kill -KILL "$PID"
  until_true "the process to end" test ! -d "/proc/$PID"
  until_true "the cgroup to be empty" rmdir "$top/$ID-new"
  mkdir "$top/$ID-new"
  must criu restore -d -D "$CASE/images" -W "$CASE/work" -o restore.log --manage-cgroups --cgroup-root "/$ID-new"
  : >"$FILES/n"
  until_true "the process to look again" test -s "$FILES/n"
  _sees yes || fail "a cgroup that somebody made has another filter now"
}

case_device_filter_that_cannot_be_read() {
  local top=/sys/fs/cgroup status=0
  only_v2 || top=/sys/fs/cgroup/unified
  [[ -e $top/cgroup.controllers ]] || { echo "skip: there is no cgroup v2 hierarchy"; return 0; }
  mkdir "$top/$ID"
  /usr/bin/python3 "$SUPPORT/device_filter.py" "$top/$ID" calls 2>"$CASE/said" || status=$?
  ((status != 77)) || { echo "skip: $(<"$CASE/said")"; return 0; }
  host_counter
  echo "$PID" >"$top/$ID/cgroup.procs"
  must_fail UNSUPPORTED criu dump -t "$PID" -D "$CASE/images" -W "$CASE/work" -o dump.log --manage-cgroups
  grep -q 'device filter' "$CASE/work/dump.log" || fail "it is not named: $(tail -n 2 "$CASE/work/dump.log")"
  counts_on
  # Whoever leaves cgroups alone may have it.
  must criu dump -t "$PID" -D "$CASE/images" -W "$CASE/work" -o dump.log
}

# A host whose only hierarchy is v2, played in a mount namespace: without controllers there are still places and limits.
case_pure_v2() {
  mkdir -p "$CASE/images" "$CASE/work" "$CASE/host"
  unshare -m bash -c '
    umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup || exit 3
    mkdir -p "/sys/fs/cgroup/$1/inner" && echo 77 >"/sys/fs/cgroup/$1/inner/cgroup.max.descendants" || exit 3
    setsid "$STASIS_BUILD/live/umask" "$2/ready" "$2/go" "$2/result" </dev/null >/dev/null 2>&1 &
    pid=$!
    echo $pid >>"$2/pids"
    echo $pid >"/sys/fs/cgroup/$1/inner/cgroup.procs"
    while [[ ! -e $2/ready ]]; do sleep 0.02; done
    for child in $(pgrep -P $pid); do echo $child >>"$2/pids"; echo $child >"/sys/fs/cgroup/$1/inner/cgroup.procs"; done
    stasis checkpoint --pid $pid -D "$2/images" --work-dir "$2/work" -o dump.log -v4 || exit 4
    wait $pid
    for each in $(<"$2/pids"); do while [[ -d /proc/$each ]]; do sleep 0.02; done; done
    rmdir "/sys/fs/cgroup/$1/inner" "/sys/fs/cgroup/$1"
    stasis restore -D "$2/images" --work-dir "$2/work" -o restore.log -v4 --cgroup-root "/$1-new" --detach --pidfile "$2/pid" || exit 5
    grep -h "^0::" "/proc/$(<"$2/pid")/cgroup" >"$2/place"
    cat "/sys/fs/cgroup$(sed s/^0::// "$2/place")/cgroup.max.descendants" >"$2/limit"
  ' bash "$ID" "$CASE" </dev/null >"$CASE/said" 2>&1 || { (($? != 3)) || { echo "skip: no cgroup v2 here"; return 0; }; fail "$(tail -n 3 "$CASE/said" | tr '\n' ' ') $(explain)"; }
  [[ $(<"$CASE/place") == "0::/$ID-new"* ]] || fail "it is in $(<"$CASE/place")"
  [[ $(<"$CASE/limit") == 77 ]] || fail "the limit is $(<"$CASE/limit")"
  kill -KILL "$(<"$CASE/pid")"
  until_true "the tasks to go" _no_tasks
}

run_cases
