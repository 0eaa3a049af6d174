#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# stasis with another engine: our own drop-in under another name, and, in the virtual machine, Debian's criu.
. "$(dirname "$0")/lib.sh"

CRIU=$STASIS_BUILD/libexec/stasis/criu
# An engine that says how it was called.
make_engine() {
  ENGINE=$CASE/engine
  printf '#!/bin/sh\necho "$*" >>%s\nexec %s "$@"\n' "$CASE/calls" "$CRIU" >"$ENGINE"
  chmod 755 "$ENGINE"
}
was_called() { (($(grep -cx 'swrk 3' "$CASE/calls") == $1)) || fail "the engine was called: $(tr '\n' ',' <"$CASE/calls")"; }
prepared() {
  mkdir -p "$CASE/work"
  make_engine
  make_bundle "$@"
  start
}
take() {
  must stasis checkpoint --work-dir "$CASE/work" -o dump.log -v4 --images-dir "$CASE/images" "$@"
  until_true "the tasks to go" _no_tasks
  must runc delete -f "$ID"
}
case_checkpoint_and_restore() {
  prepared
  take "$ID" --engine "$ENGINE"
  was_called 2 # VERSION, DUMP
  [[ -s $CASE/work/engine-dump.log && -s $CASE/work/stats-dump ]] || fail "no log or statistics of the engine"
  local before
  before=$(count)
  bring --bundle "$BUNDLE" --engine "$ENGINE"
  was_called 4
  counts_on "$before"
  kill -KILL "$PID"
  nothing_left
}

case_leave_running_and_json() {
  prepared
  must stasis checkpoint "$ID" -D "$CASE/images" --leave-running --json --engine "$ENGINE"
  grep -q '"pages_written":[1-9]' "$CASE/said" || fail "no pages in $(<"$CASE/said")"
  unharmed
}

case_engine_of_a_plan() {
  prepared
  stasis plan "$ID" | sed "s|^engine: .*|engine: $ENGINE|" >"$CASE/plan"
  take --plan "$CASE/plan"
  was_called 2
  bring --plan "$CASE/plan"
  was_called 4
  counts_on
  sed -i 's|^engine: .*|engine: criu|' "$CASE/plan"
  must_fail BAD-DESCRIPTION stasis restore -D "$CASE/images" --plan "$CASE/plan"
}

case_exec_cmd_is_the_parent() {
  prepared
  take "$ID"
  stasis restore -D "$CASE/images" --work-dir "$CASE/work" --bundle "$BUNDLE" --pidfile "$CASE/pid" --engine "$ENGINE" \
    --exec-cmd -- /bin/sleep 54323 </dev/null >"$CASE/said" 2>&1 &
  local supervisor=$!
  echo "$supervisor" >>"$CASE/pids"
  until_true "the supervisor" grep -qx sleep "/proc/$supervisor/comm"
  PID=$(<"$CASE/pid")
  echo "$PID" >>"$CASE/pids"
  [[ $(awk '{print $4}' "/proc/$PID/stat") == "$supervisor" ]] || fail "the parent is not the supervisor"
  counts_on
}

case_waits_for_the_end() {
  prepared
  take "$ID"
  stasis restore -D "$CASE/images" --work-dir "$CASE/work" --bundle "$BUNDLE" --pidfile "$CASE/pid" --engine "$ENGINE" \
    </dev/null >"$CASE/said" 2>&1 &
  local waiter=$! status=0
  until_true "the pidfile" test -s "$CASE/pid"
  echo "$(<"$CASE/pid")" >>"$CASE/pids"
  counts_on
  kill -KILL "$(<"$CASE/pid")"
  wait "$waiter" || status=$?
  ((status == 137)) || fail "status $status"
}

case_cgroup_root() {
  grep -q ':[a-z,]*cpuacct' /proc/self/cgroup || { echo "skip: this machine has no v1 hierarchies"; return 0; }
  prepared
  take "$ID"
  bring --bundle "$BUNDLE" --engine "$ENGINE" --cgroup-root "/$ID-n" --cgroup-root "cpuacct:/$ID-s"
  counts_on
  grep -qE "cpuacct[^:]*:/$ID-s" "/proc/$PID/cgroup" || fail "$(tr '\n' ' ' <"/proc/$PID/cgroup")"
  grep -qE ":memory:/$ID-n" "/proc/$PID/cgroup" || fail "$(tr '\n' ' ' <"/proc/$PID/cgroup")"
}

# The numbers of descriptors are translated, those of stdio and others.
case_inherited_descriptors() {
  mkdir -p "$CASE/work" "$FILES"
  make_engine
  # An unnamed pipe, whose other end is ours.
  exec 8> >(exec cat >"$CASE/first")
  setsid /usr/bin/python3 -c 'import os, time
os.closerange(3, 4096)
while True:
    os.write(1, b"tick\n")
    time.sleep(0.02)' "$ID" </dev/null >&8 2>/dev/null &
  PID=$!
  exec 8>&-
  echo "$PID" >>"$CASE/pids"
  until_true "the first words" test -s "$CASE/first"
  local key
  key=$(readlink "/proc/$PID/fd/1")
  must stasis checkpoint --pid "$PID" -D "$CASE/images" --work-dir "$CASE/work" --engine "$ENGINE"
  : >"$CASE/second"
  (exec 7> >(exec cat >"$CASE/second"); exec stasis restore -D "$CASE/images" --work-dir "$CASE/work" --detach --pidfile "$CASE/pid" \
    --inherit-fd "fd[7]:$key" --engine "$ENGINE" </dev/null >"$CASE/said" 2>&1) || fail "restore: $(tail -n 3 "$CASE/said")"
  echo "$(<"$CASE/pid")" >>"$CASE/pids"
  until_true "words in the new pipe" grep -q tick "$CASE/second"
}

case_what_it_cannot_do() {
  host_counter
  rmdir "$CASE/images"
  make_engine
  must_fail ENGINE-FAILED stasis checkpoint --pid "$PID" -D "$CASE/images" --engine "$CASE/absent"
  must_fail ENGINE-FAILED stasis checkpoint --pid "$PID" -D "$CASE/images" --engine /bin/false
  printf '#!/usr/bin/python3\nimport socket\ns = socket.socket(fileno=3)\ns.recv(9999)\ns.send(bytes([8, 10, 16, 1, 82, 4, 8, 3, 16, 10]))\n' >"$CASE/old"
  chmod 755 "$CASE/old"
  must_fail ENGINE-FAILED stasis checkpoint --pid "$PID" -D "$CASE/images" --engine "$CASE/old"
  grep -q 'version 3.10' "$CASE/said" || fail "$(<"$CASE/said")"
  for option in --force --allow-uprobes --ghost-fiemap; do
    ABOUT=$option must_fail UNSUPPORTED-OPTION stasis checkpoint --pid "$PID" -D "$CASE/images" --engine "$ENGINE" "$option"
  done
  [[ ! -e $CASE/images ]] || fail "an images directory was left"
  counts_on
}

# The engine's own reason and code come through, and nothing is left.
case_failures_are_told() {
  mkdir -p "$CASE/work"
  make_engine
  /usr/bin/python3 -c 'import socket, time; a, b = socket.socketpair(); open("'"$CASE"'/up", "w"); time.sleep(600)' </dev/null >/dev/null 2>&1 3>&- 9>&- &
  PID=$!
  echo "$PID" >>"$CASE/pids"
  until_true "the process" test -e "$CASE/up"
  must_fail 'UNSUPPORTED|TRACED|OUTSIDE-FILE' stasis checkpoint --pid "$PID" -D "$CASE/images" --work-dir "$CASE/work" --engine "$ENGINE"
  grep -q "the engine $ENGINE failed" "$CASE/said" || fail "$(<"$CASE/said")"
  [[ ! -e $CASE/images ]] || fail "left: $(ls -A "$CASE/images")"
  [[ $(awk '/^TracerPid/ {print $2}' "/proc/$PID/status") == 0 ]] || fail "it is still traced"
  must_fail IMAGE-MISSING stasis restore -D "$CASE/work" --engine "$ENGINE"
}

case_script_refuses() {
  host_counter
  rmdir "$CASE/images"
  make_engine
  printf '#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" != post-dump ]\n' >"$CASE/script"
  chmod 755 "$CASE/script"
  must_fail HOOK-FAILED stasis checkpoint --pid "$PID" -D "$CASE/images" --engine "$ENGINE" --action-script "$CASE/script"
  counts_on
  [[ $(ls -A "$CASE/images") == engine-dump.log ]] || fail "left: $(ls -A "$CASE/images")"
  must stasis checkpoint --pid "$PID" -D "$CASE/images" --engine "$ENGINE" --leave-running
}

# --- Debian's criu, where it works.
stock() {
  [[ ${STASIS_IN_VM:-} == 1 ]] || { echo "skip: Debian's criu does not run on this kernel; ./dev vm"; return 1; }
  [[ -x /usr/sbin/criu ]] || { echo "skip: no /usr/sbin/criu"; return 1; }
}
dump_with() {
  must stasis checkpoint --pid "$PID" -D "$CASE/images" --work-dir "$CASE/work" -o dump.log -v4 "$@"
  wait "$PID" 2>/dev/null || true
  [[ ! -d /proc/$PID ]] || fail "the process lives on"
}
restore_with() { bring "$@"; counts_on; }

case_stock_both() {
  stock || return 0
  host_counter
  dump_with --engine /usr/sbin/criu
  restore_with --engine /usr/sbin/criu
}
case_stock_dumps_we_restore() {
  stock || return 0
  host_counter
  dump_with --engine /usr/sbin/criu
  restore_with
}
case_stock_restores_what_we_dump() {
  stock || return 0
  host_counter
  dump_with
  restore_with --engine /usr/sbin/criu
}
case_stock_container() {
  stock || return 0
  prepared
  take "$ID" --engine /usr/sbin/criu
  bring --bundle "$BUNDLE" --engine /usr/sbin/criu
  counts_on
}
case_stock_dumps_a_container_we_restore() {
  stock || return 0
  prepared --tmpfs /scratch "echo kept >/scratch/file; $COUNTER"
  take "$ID" --engine /usr/sbin/criu
  bring --bundle "$BUNDLE"
  counts_on
  [[ $(<"/proc/$PID/root/scratch/file") == kept ]] || fail "the tmpfs is not filled"
}
case_stock_restores_our_container() {
  stock || return 0
  prepared --tmpfs /scratch "echo kept >/scratch/file; $COUNTER"
  take "$ID"
  bring --bundle "$BUNDLE" --engine /usr/sbin/criu
  counts_on
  [[ $(<"/proc/$PID/root/scratch/file") == kept ]] || fail "the tmpfs is not filled"
}
# runc itself, with one engine behind the checkpoint and the other behind the restore.
case_stock_and_ours_behind_runc() {
  stock || return 0
  prepared --tmpfs /scratch "echo kept >/scratch/file; $COUNTER"
  local ours=$PATH theirs
  theirs=${PATH//"$STASIS_BUILD/libexec/stasis:"/}
  for _ in 1 2; do
    rm -rf "$CASE/images"
    PATH=$theirs checkpoint
    PATH=$ours restore
    counts_on
    rm -rf "$CASE/images"
    PATH=$ours checkpoint
    PATH=$theirs restore
    counts_on
  done
  [[ $(<"/proc/$(pid_of)/root/scratch/file") == kept ]] || fail "the tmpfs is not filled"
}

run_cases
