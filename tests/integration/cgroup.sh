#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Control groups as a user sees them: namespaces, new places, limits, and that nobody else's are touched.
. "$(dirname "$0")/lib.sh"

take() {
  must stasis checkpoint "$ID" --images-dir "$CASE/images" --work-dir "$CASE/work" -o dump.log -v4 "$@"
  until_true "the tasks to go" _no_tasks
  must runc delete -f "$ID"
}
bring() {
  must stasis restore --images-dir "$CASE/images" --work-dir "$CASE/work" -o restore.log -v4 --detach --pidfile "$CASE/pid" "$@"
  PID=$(<"$CASE/pid")
  rm -f "$CASE/pid"
  echo "$PID" >>"$CASE/pids"
}
# Every control group of the host with its limits, but those of this case. Counters change by themselves.
everybody_elses() {
  find /sys/fs/cgroup -type d ! -name "*$ID*" 2>/dev/null | sort
  find /sys/fs/cgroup -maxdepth 3 -type f ! -path "*$ID*" \( -name '*.max' -o -name 'memory.limit_in_bytes' -o -name 'cpu.shares' -o -name 'cpu.weight' \
    -o -name 'freezer.state' -o -name 'cgroup.subtree_control' -o -name 'cpuset.cpus' -o -name 'notify_on_release' \) -exec grep -H . {} + 2>/dev/null | sort
}

# In its cgroup namespace a container sees itself at / before and after, wherever it lives.
case_namespace_root_is_the_new_place() {
  mkdir -p "$CASE/work"
  make_bundle --cgroup-namespace "while :; do cat /proc/self/cgroup >/files/seen.new; mv /files/seen.new /files/seen; echo \$((++i)) >/files/n; sleep 0.02; done"
  start
  local before
  before=$(<"$FILES/seen")
  [[ $before == *:/* ]] && ! grep -q "$ID" <<<"$before" || fail "the container sees $before"
  take
  rm -f "$FILES/seen"
  bring --bundle "$BUNDLE" --cgroup-root "/$ID-new/deep"
  until_true "the container to look" test -s "$FILES/seen"
  [[ $(<"$FILES/seen") == "$before" ]] || fail "it saw $(tr '\n' ' ' <<<"$before") and sees $(tr '\n' ' ' <"$FILES/seen")"
  grep -q ":/$ID-new/deep" "/proc/$PID/cgroup" || fail "it lives in $(tr '\n' ' ' <"/proc/$PID/cgroup")"
}

# Groups below the container's own come along, with who is in them.
case_groups_inside() {
  mkdir -p "$CASE/work"
  make_bundle "sleep 100000 & $COUNTER"
  start
  local sleeper dir
  _sleeper() { sleeper=$(pgrep -P "$(pid_of)" -x -f 'sleep 100000'); }
  until_true "the background job" _sleeper
  dir=/sys/fs/cgroup/pids/$ID
  [[ -d $dir ]] || { echo "skip: the pids hierarchy is not a v1 one"; return 0; }
  mkdir "$dir/inner"
  echo 55 >"$dir/inner/pids.max"
  echo "$sleeper" >"$dir/inner/cgroup.procs"
  take
  bring --bundle "$BUNDLE" --cgroup-root "/$ID-new"
  counts_on
  _sleeper_again() { sleeper=$(pgrep -P "$PID" -x -f 'sleep 100000'); }
  until_true "the background job again" _sleeper_again
  grep -q "pids:/$ID-new/inner$" "/proc/$sleeper/cgroup" || fail "the job is in $(grep pids "/proc/$sleeper/cgroup")"
  grep -q "pids:/$ID-new$" "/proc/$PID/cgroup" || fail "the root is in $(grep pids "/proc/$PID/cgroup")"
  [[ $(<"/sys/fs/cgroup/pids/$ID-new/inner/pids.max") == 55 ]]
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
