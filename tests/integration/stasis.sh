#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Our own command line: checkpoint, restore, plan, check, show, with containers of unmodified runc.
. "$(dirname "$0")/lib.sh"

prepared() {
  mkdir -p "$CASE/work"
  make_bundle "$@"
  start
}

case_checkpoint_and_restore() {
  prepared
  take
  local before
  before=$(count)
  bring --bundle "$BUNDLE"
  counts_on "$before"
  kill -KILL "$PID"
  nothing_left
}

case_twice_and_leave_running() {
  prepared
  must stasis checkpoint "$ID" -D "$CASE/running" --work-dir "$CASE/work" --leave-running
  unharmed
  take
  bring --bundle "$BUNDLE"
  counts_on
  rm -rf "$CASE/images"
  # runc does not know it any more: what lies outside has to be said by hand, with the names a bundle's plan gives.
  local externals
  mapfile -t externals < <(awk '{ for (i = 7; $i != "-"; i++); type = $(i + 1)
    if ($4 == "/null") print "--external=mnt[" $5 "]:/dev/null"; else if ($5 == "/files" || type == "cgroup") print "--external=mnt[" $5 "]:" $5 }' \
    "/proc/$PID/mountinfo")
  must stasis checkpoint --pid "$PID" -D "$CASE/images" --work-dir "$CASE/work" "${externals[@]}"
  until_true "the tasks to go" _no_tasks
  bring --bundle "$BUNDLE"
  counts_on
}

# The issue's example on the hierarchies of this machine.
case_cgroup_root() {
  grep -q ':[a-z,]*cpuacct' /proc/self/cgroup || { echo "skip: this machine has no v1 hierarchies; live cgroup-root has v2"; return 0; }
  prepared --pids 66
  take
  local old
  bring --bundle "$BUNDLE" --cgroup-root "/$ID-n" --cgroup-root "cpuacct,cpu:/$ID-s" --cgroup-root "name=systemd:/$ID-d"
  counts_on
  local line names path want seen=0
  while IFS=: read -r _ names path; do
    case ,$names, in
      *,cpu,* | *,cpuacct,*) want=/$ID-s ;;
      *,name=systemd,*) want=/$ID-d ;;
      *) want=/$ID-n ;;
    esac
    [[ $names != "" ]] || continue  # runc 1.1 does not put a container into the unified hierarchy of a hybrid host
    [[ $path == "$want" ]] || fail "$names is in $path, not $want"
    ((++seen))
  done <"/proc/$PID/cgroup"
  ((seen > 0)) || [[ $(</proc/$PID/cgroup) == "0::/$ID-n" ]] || fail "no hierarchy was looked at: $(</proc/$PID/cgroup)"
  local file
  for file in "/sys/fs/cgroup/pids/$ID-n/pids.max" "/sys/fs/cgroup/$ID-n/pids.max"; do
    [[ ! -e $file || $(<"$file") == 66 ]] || fail "$file is $(<"$file")"
  done
  for old in /sys/fs/cgroup/*/"$ID"; do [[ ! -e $old ]] || fail "$old exists again"; done
}

case_exec_cmd_is_the_parent() {
  prepared
  take
  stasis restore -D "$CASE/images" --work-dir "$CASE/work" -o restore.log --bundle "$BUNDLE" --pidfile "$CASE/pid" \
    --exec-cmd -- sleep 54321 7<"$CASE" </dev/null >"$CASE/said" 2>&1 &
  local supervisor=$! pid fd
  echo "$supervisor" >>"$CASE/pids"
  _is_sleep() { kill -0 "$supervisor" || fail "the supervisor is gone: $(<"$CASE/said")"; [[ $(tr '\0' ' ' <"/proc/$supervisor/cmdline") == 'sleep 54321 ' ]]; }
  until_true "the supervisor" _is_sleep
  pid=$(<"$CASE/pid")
  echo "$pid" >>"$CASE/pids"
  [[ $(awk '{print $4}' "/proc/$pid/stat") == "$supervisor" ]] || fail "the parent of $pid is $(awk '{print $4}' "/proc/$pid/stat"), not the supervisor $supervisor"
  [[ $(pgrep -P "$supervisor") == "$pid" ]] || fail "children of the supervisor: $(pgrep -P "$supervisor" | tr '\n' ' ')"
  # What the caller gave is still there, and nothing of the engine's.
  [[ $(readlink "/proc/$supervisor/fd/7") == "$CASE" ]] || fail "descriptor 7 did not reach the supervisor"
  for fd in "/proc/$supervisor/fd"/*; do
    ((${fd##*/} <= 2 || ${fd##*/} == 7)) || [[ -e /proc/$BASHPID/fd/${fd##*/} ]] || fail "the supervisor inherited fd ${fd##*/}: $(readlink "$fd")"
  done
  [[ $(awk '/^SigBlk/ {print $2}' "/proc/$supervisor/status") == 0000000000000000 ]] || fail "the supervisor has signals blocked"
  # SIGINT and SIGQUIT are ignored in a background job of a script; SIGPIPE would be the engine's doing.
  (((0x$(awk '/^SigIgn/ {print $2}' "/proc/$supervisor/status") & 1 << 12) == 0)) || fail "the supervisor has SIGPIPE ignored"
  counts_on
}

case_supervise() {
  local stop='n=0; trap "echo told >/files/told; exit 7" TERM; echo 1 >/files/n; while :; do n=$((n+1)); mkdir -p /files/d$n; sleep 0.02; done'
  prepared "$stop"
  take
  local supervisor status how
  for how in stop kill command; do
    rm -f "$CASE/pid" "$CASE/status" "$FILES/told"
    local options=(--status-file "$CASE/status")
    [[ $how != kill ]] || options+=(--stop-signal SIGWINCH --kill-after 0)  # which it ignores
    [[ $how != command ]] || options+=(-- sh -c 'echo "after $STASIS_EXIT_STATUS"; exit 5')
    stasis restore -D "$CASE/images" --work-dir "$CASE/work" --bundle "$BUNDLE" --pidfile "$CASE/pid" \
      --exec-cmd -- stasis supervise "${options[@]}" </dev/null >"$CASE/said" 2>&1 &
    supervisor=$!
    echo "$supervisor" >>"$CASE/pids"
    until_true "the supervisor" grep -qz supervise "/proc/$supervisor/cmdline"
    _waits() { [[ $(cut -d' ' -f1 "/proc/$supervisor/syscall") == 128 ]]; }  # rt_sigtimedwait
    until_true "it to wait" _waits
    [[ $(pgrep -P "$supervisor") == "$(<"$CASE/pid")" ]] || fail "children of the supervisor: $(pgrep -P "$supervisor" | tr '\n' ' ')"
    kill -TERM "$supervisor"
    status=0
    wait "$supervisor" || status=$?
    case $how in
      stop) [[ $status == 7 && $(<"$CASE/status") == 7 && -e $FILES/told ]] ;;
      kill) [[ $status == 137 && $(<"$CASE/status") == 137 && ! -e $FILES/told ]] ;;
      command) [[ $status == 5 ]] && grep -q 'after 7' "$CASE/said" ;;
    esac || fail "$how: status $status, file $(cat "$CASE/status"), said $(tail -n 3 "$CASE/said")"
    nothing_left
  done
}

case_waits_and_returns_the_status() {
  prepared "$COUNTER; exit 0"
  take
  stasis restore -D "$CASE/images" --work-dir "$CASE/work" --bundle "$BUNDLE" --pidfile "$CASE/pid" </dev/null >"$CASE/said" 2>&1 &
  local engine=$! status=0
  echo "$engine" >>"$CASE/pids"
  until_true "the pid file" test -s "$CASE/pid"
  counts_on
  kill -0 "$engine" || fail "stasis restore did not wait: $(<"$CASE/said")"
  kill -KILL "$(<"$CASE/pid")"
  wait "$engine" || status=$?
  ((status == 137)) || fail "status $status for a container that was killed"
}

case_plan_touches_nothing() {
  prepared
  local pid before
  pid=$(pid_of)
  before=$(cat "/proc/$pid/mountinfo" "/proc/$pid/cgroup")
  stasis plan --runtime runc "$ID" >"$CASE/plan" 2>"$CASE/said" || fail "stasis plan: $(<"$CASE/said")"
  grep -q '/files' "$CASE/plan" || fail "the plan does not name the bind mount /files"
  grep -q "$FILES" "$CASE/plan" || fail "the plan does not say where /files comes from"
  stasis plan --bundle "$BUNDLE" >"$CASE/plan2" 2>"$CASE/said" || fail "stasis plan --bundle: $(<"$CASE/said")"
  grep -q '/files' "$CASE/plan2" || fail "the plan of a bundle does not name the bind mount /files"
  [[ $before == "$(cat "/proc/$pid/mountinfo" "/proc/$pid/cgroup")" ]] || fail "stasis plan changed the container"
  unharmed
}

case_edited_plan_is_applied() {
  prepared
  stasis plan --runtime runc "$ID" >"$CASE/plan" 2>"$CASE/said" || fail "stasis plan: $(<"$CASE/said")"
  take
  cp -a "$FILES" "$CASE/moved"
  sed -i "s|$FILES|$CASE/moved|" "$CASE/plan"
  bring --plan "$CASE/plan"
  FILES=$CASE/moved counts_on
}

case_plan_with_an_unknown_key_is_refused() {
  prepared
  stasis plan --runtime runc "$ID" >"$CASE/plan" 2>"$CASE/said" || fail "stasis plan: $(<"$CASE/said")"
  take
  echo 'surprise: 1' >>"$CASE/plan"
  must_fail BAD-DESCRIPTION stasis restore -D "$CASE/images" --plan "$CASE/plan" --detach
  grep -q 'surprise' "$CASE/said" || fail "the key is not named: $(<"$CASE/said")"
  nothing_left
}

# Both meanings of the map: at dump a mountpoint gets a name, at restore the name gets a source.
named_mount() { # DUMP-OPTION... -- RESTORE-OPTION...
  local dump=() before
  while [[ $1 != -- ]]; do dump+=("$1"); shift; done
  shift
  prepared
  take "${dump[@]}"
  crit decode -i "$(echo "$CASE/images"/mountpoints-*.img)" | grep -q 'the-name' || fail "the name is not in the images"
  cp -a "$FILES" "$CASE/moved"
  before=$(count)
  bring --bundle "$BUNDLE" "$@"
  FILES=$CASE/moved counts_on "$before"
  [[ $(count) == "$before" ]] || fail "the old source is still written to"
}
case_ext_mount_map() { named_mount --ext-mount-map /files:the-name -- --ext-mount-map "the-name:$CASE/moved"; }
case_external_mnt() { named_mount --external 'mnt[/files]:the-name' -- --external "mnt[the-name]:$CASE/moved"; }

case_made_by_runc_restored_by_stasis() {
  prepared
  checkpoint
  local before
  before=$(count)
  bring --bundle "$BUNDLE"
  counts_on "$before"
}

case_made_by_stasis_restored_by_runc() {
  prepared
  take
  local before
  before=$(count)
  restore
  is_running
  counts_on "$before"
}

case_check_lists_every_obstacle() {
  # Who listens is stopped, so nobody accepts.
  prepared "(sleep 1 & exec 9</proc/\$!/stat; wait; echo >/files/held; exec sleep 1000) & (nc -l -p 7777 & n=\$!; sleep 0.5; kill -STOP \$n; sleep 1000 | nc 127.0.0.1 7777 & sleep 1000 | nc 127.0.0.1 7777) & $COUNTER"
  _two() { [[ $(cat "/proc/$(pid_of)/net/tcp" | grep -c ":1E61 01 ") == 2 ]]; }
  until_true "two connections" _two
  until_true "the file of a process that has ended" test -e "$FILES/held"
  must_fail UNSUPPORTED stasis check --container "$ID"
  grep -q 'socket' "$CASE/said" && grep -q '/proc/[0-9]*/stat' "$CASE/said" || fail "not both obstacles: $(tr '\n' ' ' <"$CASE/said")"
  is_running
  counts_on
}

case_check_finds_nothing_wrong() {
  prepared
  must stasis check --container "$ID"
  must stasis check
  unharmed
}

case_json() {
  prepared
  ! stasis checkpoint no-such-container -D "$CASE/none" --json >"$CASE/out" 2>"$CASE/err" || fail "it should have failed"
  /usr/bin/python3 - "$CASE/out" "$CASE/err" <<'PY' || fail "no JSON error with a code: $(cat "$CASE/out" "$CASE/err")"
import json, sys
for path in sys.argv[1:]:
    try:
        error = json.load(open(path))
    except ValueError:
        continue
    error = error.get('error', error)
    sys.exit(0 if error['code'] == 'STASIS-E-NO-CONTAINER' and error['remedy'] and error['message'] else 1)
sys.exit(1)
PY
  stasis checkpoint "$ID" -D "$CASE/images" --json >"$CASE/out" 2>"$CASE/err" || fail "$(<"$CASE/err")"
  /usr/bin/python3 -c 'import json, sys; json.load(open(sys.argv[1]))' "$CASE/out" || fail "not JSON: $(<"$CASE/out")"
}

case_show() {
  prepared
  take
  stasis show "$CASE/images" >"$CASE/out" 2>"$CASE/err" || fail "stasis show: $(<"$CASE/err")"
  stasis show "$CASE/images/inventory.img" >"$CASE/out" 2>"$CASE/err" || fail "stasis show FILE: $(<"$CASE/err")"
  /usr/bin/python3 -c 'import json, sys; json.load(open(sys.argv[1]))' "$CASE/out" || fail "not JSON: $(head -c 300 "$CASE/out")"
}

case_version() {
  stasis version >"$CASE/out"
  grep -q 'stasis' "$CASE/out"
  [[ $(criu --version 2>&- | head -n 1) =~ ^Version:\ [3-9]\.[0-9.]+$ ]] || fail "criu --version says $(criu --version | head -n 1)"
  must criu check
}

run_cases
