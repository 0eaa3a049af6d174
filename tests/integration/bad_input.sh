#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Bad input and bad luck. After a failed dump the container is as it was; after a failed restore nothing is left.
. "$(dirname "$0")/lib.sh"

running() { mkdir -p "$CASE/work"; make_bundle "$@"; start; }
# A finished checkpoint in $CASE/images, and no container.
images() {
  running "$@"
  must stasis checkpoint "$ID" -D "$CASE/images" --work-dir "$CASE/work"
  must runc delete -f "$ID"
  nothing_left
}
dump_fails() { local codes=$1; shift; must_fail "$codes" stasis checkpoint "$ID" --work-dir "$CASE/work" -o dump.log -v4 "$@"; }
restore_fails() {
  local codes=$1
  shift
  rm -f "$CASE"/work/*.log
  must_fail "$codes" stasis restore --bundle "$BUNDLE" --detach --work-dir "$CASE/work" -o restore.log -v4 "$@"
  nothing_left
}
restores() { # the proof that the images, and the host, are still good
  must stasis restore --bundle "$BUNDLE" -D "$CASE/images" --detach --pidfile "$CASE/pid.$RANDOM"
  counts_on
}

case_unknown_container() {
  mkdir -p "$CASE/work"
  must_fail NO-CONTAINER stasis checkpoint no-such-container -D "$CASE/images"
  [[ ! -e $CASE/images ]] || fail "an image directory was made"
  must_fail 'NO-CONTAINER|NOT-FOUND|TASK-GONE' stasis checkpoint --pid 4194303 -D "$CASE/images"
  must_fail 'NO-CONTAINER|NOT-FOUND|TASK-GONE' criu dump -t 4194303 -D "$CASE/work" -o dump.log
}

case_stopped_container() {
  running
  must runc kill "$ID" KILL
  until_true "the tasks to go" _no_tasks
  must_fail NO-CONTAINER stasis checkpoint "$ID" -D "$CASE/images"
}

case_no_permission() {
  running
  mkdir "$CASE/nobody"
  chown 65534 "$CASE/nobody"
  must_fail PERMISSION setpriv --reuid 65534 --regid 65534 --clear-groups "$STASIS_BUILD/libexec/stasis/criu" \
    dump -t "$(pid_of)" -D "$CASE/nobody" -o dump.log
  no_checkpoint_in "$CASE/nobody"
  unharmed
}

case_image_directory_missing() {
  running
  must_fail 'IMAGE-DIR|NOT-FOUND' criu dump -t "$(pid_of)" -D "$CASE/no/such/dir" -o dump.log
  dump_fails 'IMAGE-DIR|NOT-FOUND' -D "$CASE/no/such/dir"
  unharmed
  must_fail 'IMAGE-DIR|NOT-FOUND|IMAGE-MISSING' stasis restore -D "$CASE/no/such/dir" --detach
}

case_image_directory_not_empty() {
  running
  mkdir "$CASE/full"
  echo precious >"$CASE/full/file"
  dump_fails IMAGE-DIR -D "$CASE/full"
  [[ $(<"$CASE/full/file") == precious ]]
  unharmed
}

case_image_directory_is_empty_at_restore() {
  images
  mkdir "$CASE/empty"
  restore_fails 'IMAGE-MISSING' -D "$CASE/empty"
  restores
}

case_image_directory_not_writable() {
  running
  mkdir "$CASE/ro"
  mount -t tmpfs -o ro,size=1m stasis-test "$CASE/ro"
  dump_fails 'IMAGE-DIR|SYSTEM|PERMISSION' -D "$CASE/ro"
  umount "$CASE/ro"
  unharmed
}

case_image_directory_full() {
  running "x=\$(head -c 600000 /dev/urandom | base64); $COUNTER"
  local size
  for size in 16k 64k 128k 256k; do
    mkdir "$CASE/full"
    mount -t tmpfs -o "size=$size" stasis-test "$CASE/full"
    dump_fails NO-SPACE -D "$CASE/full"
    no_checkpoint_in "$CASE/full"
    umount "$CASE/full"
    rmdir "$CASE/full"
    unharmed
  done
}

case_truncated_images() {
  images
  local file name tried=0
  cp -a "$CASE/images" "$CASE/good"
  for file in "$CASE"/good/*.img "$CASE"/good/stasis*; do
    name=${file##*/}
    [[ -f $file && $name != stats-* ]] || continue
    rm -rf "$CASE/images"
    cp -a "$CASE/good" "$CASE/images"
    ABOUT=$name
    truncate -s $(($(stat -c %s "$file") / 2)) "$CASE/images/$name"
    restore_fails 'IMAGE-' -D "$CASE/images"
    ((++tried))
  done
  ((tried > 10)) || fail "only $tried files"
  rm -rf "$CASE/images"
  mv "$CASE/good" "$CASE/images"
  restores
}

case_corrupt_images() {
  images
  local file name size
  cp -a "$CASE/images" "$CASE/good"
  for file in "$CASE"/good/*.img; do
    name=${file##*/}
    size=$(stat -c %s "$file")
    ((size > 0)) || continue
    rm -rf "$CASE/images"
    cp -a "$CASE/good" "$CASE/images"
    ABOUT=$name
    printf '\xa5\x5a\xff' | dd of="$CASE/images/$name" bs=1 seek=$((size * 2 / 3)) conv=notrunc status=none
    cmp -s "$file" "$CASE/images/$name" && continue
    restore_fails 'IMAGE-' -D "$CASE/images"
  done
}

case_missing_image_file() {
  images
  local name
  for name in pstree.img files.img "$(basename "$(echo "$CASE"/images/core-*.img | cut -d' ' -f1)")" inventory.img; do
    [[ -e $CASE/images/$name ]] || continue
    mv "$CASE/images/$name" "$CASE/hidden"
    restore_fails 'IMAGE-MISSING|IMAGE-CORRUPT' -D "$CASE/images"
    mv "$CASE/hidden" "$CASE/images/$name"
  done
  restores
}

case_another_architecture() {
  images
  rm -f "$CASE"/images/stasis*  # as if another engine had made them: without our manifest of checksums
  local core
  for core in "$CASE"/images/core-*.img; do
    crit decode -i "$core" -o "$CASE/json"
    sed -i 's/"mtype": "X86_64"/"mtype": "AARCH64"/; s/"thread_info"/"ti_aarch64_gone"/' "$CASE/json"
    /usr/bin/python3 - "$CASE/json" <<'PY'
import json, sys
image = json.load(open(sys.argv[1]))
for entry in image['entries']:
    entry['mtype'] = 'AARCH64'
    entry.pop('ti_aarch64_gone', None)
json.dump(image, open(sys.argv[1], 'w'))
PY
    crit encode -i "$CASE/json" -o "$core"
  done
  restore_fails IMAGE-ARCH -D "$CASE/images"
}

case_cgroup_root_unknown_controller() {
  images
  restore_fails CGROUP-ROOT -D "$CASE/images" --cgroup-root "nosuch:/$ID-x"
  restores
}

case_cgroup_root_with_dots() {
  images
  restore_fails CGROUP-ROOT -D "$CASE/images" --cgroup-root "/$ID-x/../../etc"
  restore_fails CGROUP-ROOT -D "$CASE/images" --cgroup-root "cpu:../$ID-x"
}

case_mount_map_without_target() {
  images
  restore_fails 'MOUNT-TARGET|NOT-FOUND' -D "$CASE/images" --ext-mount-map "/files:$CASE/no/such/source"
  restores
}

case_rootfs_missing() {
  images
  mv "$BUNDLE/rootfs" "$CASE/hidden"
  restore_fails 'MOUNT-TARGET|NOT-FOUND|FILE-MISSING|BAD-' -D "$CASE/images"
  mv "$CASE/hidden" "$BUNDLE/rootfs"
  restores
}

case_program_file_missing() {
  images
  mv "$BUNDLE/rootfs/bin/busybox" "$CASE/hidden"
  restore_fails 'FILE-MISSING' -D "$CASE/images"
  head -c 5000 "$CASE/hidden" >"$BUNDLE/rootfs/bin/busybox"  # there, but not the file it was
  restore_fails 'FILE-MISSING' -D "$CASE/images"
  cp "$CASE/hidden" "$BUNDLE/rootfs/bin/busybox"
  chmod 755 "$BUNDLE/rootfs/bin/busybox"
}

case_supervisor_does_not_exist() {
  images
  rm -f "$CASE/pid"
  must_fail BAD-SUPERVISOR stasis restore --bundle "$BUNDLE" -D "$CASE/images" --exec-cmd -- /no/such/supervisor --x
  nothing_left
  touch "$CASE/not-executable"
  must_fail BAD-SUPERVISOR stasis restore --bundle "$BUNDLE" -D "$CASE/images" --exec-cmd -- "$CASE/not-executable"
  nothing_left
  restores
}

case_usage_errors() {
  must_fail USAGE stasis checkpoint
  must_fail 'USAGE|BAD-OPTION' stasis restore --no-such-option
  must_fail USAGE stasis no-such-command
  must_fail 'USAGE|BAD-OPTION' stasis restore -D "$CASE" --detach --exec-cmd -- true
}

case_container_is_traced() {
  running "sleep 100000 & $COUNTER"  # not the counter: it would stop at each signal and wait for its tracer
  local pid
  _sleeper() { pid=$(pgrep -P "$(pid_of)" -x -f 'sleep 100000'); }
  until_true "the background job" _sleeper
  /usr/bin/python3 - "$pid" "$CASE/traced" <<'PY' &
import ctypes, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long] * 4
assert libc.ptrace(0x4206, int(sys.argv[1]), 0, 0) == 0   # PTRACE_SEIZE
open(sys.argv[2], 'w').close()
signal.pause()
PY
  local tracer=$!
  echo $tracer >>"$CASE/pids"
  until_true "the tracer" test -e "$CASE/traced"
  dump_fails TRACED -D "$CASE/images"
  kill -KILL $tracer
  _free() { [[ $(awk '/^TracerPid/ {print $2}' "/proc/$pid/status") == 0 ]]; }
  until_true "the tracer to let go" _free
  rm -rf "$CASE/images"
  unharmed
}

# --- in the middle. A phase script is called by the engine at each phase; it does WHAT at phase WHERE.
phase_script() { # WHERE SHELL-CODE ($PPID is the engine)
  cat >"$CASE/script" <<SCRIPT
#!/bin/sh
[ "\$CRTOOLS_SCRIPT_ACTION" = "$1" ] || exit 0
touch "$CASE/reached"
$2
SCRIPT
  chmod 755 "$CASE/script"
  rm -f "$CASE/reached"
}
reached() { [[ -e $CASE/reached ]] || fail "phase $1 was not reached: $(tail -n 2 "$CASE/said" | tr '\n' ' ')"; }

case_container_dies_during_dump() {
  local phase
  for phase in pre-dump network-lock post-dump; do
    running
    phase_script "$phase" "kill -KILL $(pid_of); sleep 0.1"
    local status=0
    stasis checkpoint "$ID" -D "$CASE/images" --work-dir "$CASE/work" --action-script "$CASE/script" </dev/null >"$CASE/said" 2>&1 || status=$?
    reached "$phase"
    ((status < 124)) || fail "at $phase: status $status"
    if ((status != 0)); then  # after post-dump all is written: success is right too
      grep -q 'STASIS-E-' "$CASE/said" || fail "at $phase: no code: $(<"$CASE/said")"
      [[ ! -e $CASE/images/inventory.img ]] || fail "at $phase: a failed dump left an inventory"
    fi
    until_true "the tasks to go" _no_tasks
    must runc delete -f "$ID"
    rm -rf "$CASE/images" "$FILES"
  done
}

case_script_refuses_dump() {
  running
  local phase
  for phase in pre-dump network-lock post-dump; do
    phase_script "$phase" 'exit 3'
    dump_fails HOOK-FAILED -D "$CASE/images" --action-script "$CASE/script"
    reached "$phase"
    [[ ! -d $CASE/images ]] || no_checkpoint_in "$CASE/images"
    rm -rf "$CASE/images"
    unharmed
  done
}

case_script_refuses_restore() {
  images
  local phase
  for phase in pre-restore setup-namespaces post-setup-namespaces post-restore; do
    phase_script "$phase" 'exit 3'
    restore_fails HOOK-FAILED -D "$CASE/images" --action-script "$CASE/script" --cgroup-root "/$ID-c"
    reached "$phase"
  done
  restores
}

engine_signalled_in_dump() { # SIGNAL
  running
  local phase status
  for phase in pre-dump network-lock post-dump; do
    phase_script "$phase" "kill -$1 \$PPID; sleep 0.1"
    status=0
    stasis checkpoint "$ID" -D "$CASE/images" --work-dir "$CASE/work" --action-script "$CASE/script" </dev/null >"$CASE/said" 2>&1 || status=$?
    reached "$phase"
    ((status != 0)) || fail "$1 at $phase: the dump succeeded"
    [[ ! -e $CASE/images/inventory.img ]] || fail "$1 at $phase: there is an inventory"
    rm -rf "$CASE/images"
    unharmed
  done
}
case_sigint_in_dump() { engine_signalled_in_dump INT; }
case_sigterm_in_dump() { engine_signalled_in_dump TERM; }
case_sigkill_in_dump() { engine_signalled_in_dump KILL; }

engine_signalled_in_restore() { # SIGNAL
  images
  local phase status
  for phase in pre-restore setup-namespaces post-setup-namespaces post-restore; do
    phase_script "$phase" "kill -$1 \$PPID; sleep 0.1"
    status=0
    stasis restore --bundle "$BUNDLE" -D "$CASE/images" --work-dir "$CASE/work" --detach --action-script "$CASE/script" "${@:2}" \
      </dev/null >"$CASE/said" 2>&1 || status=$?
    reached "$phase"
    ((status != 0)) || fail "$1 at $phase: the restore succeeded"
    until_true "the tasks to go after $1 at $phase" _no_tasks
    [[ $1 == KILL ]] && { cgroups_left | sort -r | xargs -r rmdir; }  # nobody is left to do it; tasks and mounts go by themselves
    nothing_left
  done
  restores
}
case_sigint_in_restore() { engine_signalled_in_restore INT --cgroup-root "/$ID-c"; }
case_sigterm_in_restore() { engine_signalled_in_restore TERM --cgroup-root "/$ID-c"; }
case_sigkill_in_restore() { engine_signalled_in_restore KILL --cgroup-root "/$ID-c"; }

# The same at arbitrary points: when the log has reached so many lines.
at_log_line() { # LINES LOG ENGINE SIGNAL [DONE-FILE: it got through, and waits]
  local end=$((SECONDS + HANG))
  while kill -0 "$3" 2>/dev/null; do
    (($(cat "$2" 2>/dev/null | wc -l) >= $1)) && { kill "-$4" "$3" 2>/dev/null || true; return 0; }
    [[ -z ${5:-} || ! -s ${5:-} ]] || return 0
    ((SECONDS < end)) || fail "the engine hangs"
  done
}
case_sigkill_anywhere_in_dump() {
  running
  local lines engine signal
  for signal in KILL INT; do
    for lines in 1 3 6 10 15 21 28 36 45 60; do
      rm -rf "$CASE/images" "$CASE/work"
      mkdir "$CASE/work"
      stasis checkpoint "$ID" -D "$CASE/images" --work-dir "$CASE/work" -o dump.log -v4 --leave-running </dev/null >"$CASE/said" 2>&1 &
      engine=$!
      at_log_line "$lines" "$CASE/work/dump.log" "$engine" "$signal"
      { wait "$engine" || true; } 2>/dev/null
      until_true "the engine to let go" no_engine
      is_running
      counts_on
    done
  done
  unharmed
}
# A killed engine's worker ends by itself.
no_engine() { ! pgrep -f "$CASE/images" >/dev/null; }
case_sigkill_anywhere_in_restore() {
  images
  local lines engine signal
  for signal in KILL INT; do
    for lines in 1 3 6 10 15 21 28 36 45 60; do
      rm -f "$CASE/work/restore.log" "$CASE/pid"
      stasis restore --bundle "$BUNDLE" -D "$CASE/images" --work-dir "$CASE/work" -o restore.log -v4 --pidfile "$CASE/pid" </dev/null >"$CASE/said" 2>&1 &
      engine=$!  # not detached: whatever happens, success would keep it waiting
      at_log_line "$lines" "$CASE/work/restore.log" "$engine" "$signal" "$CASE/pid"
      if [[ -s $CASE/pid ]]; then kill -KILL "$(<"$CASE/pid")" 2>/dev/null || true; fi
      kill -KILL "$engine" 2>/dev/null || true
      { wait "$engine" || true; } 2>/dev/null
      nothing_left
    done
  done
  restores
}

case_client_killed_in_dump() {  # runc dies: the engine sees its socket close
  running
  local lines client
  for lines in 1 5 20; do
    rm -rf "$CASE/images" "$CASE/work"
    runc checkpoint --leave-running --image-path "$CASE/images" --work-path "$CASE/work" "$ID" </dev/null >"$CASE/said" 2>&1 &
    client=$!
    at_log_line "$lines" "$CASE/work/dump.log" "$client" KILL
    { wait "$client" || true; } 2>/dev/null
    counts_on
  done
  unharmed
}

case_pid_is_taken() {
  mkdir -p "$CASE/work" "$CASE/host"
  "$STASIS_BUILD/live/umask" "$CASE/ready" "$CASE/go" "$CASE/result" </dev/null >/dev/null 2>&1 &
  local pid=$!
  echo $pid >>"$CASE/pids"
  pgrep -P $pid >>"$CASE/pids" || true
  until_true "the program" test -e "$CASE/ready"
  must criu dump -t $pid -D "$CASE/host" -o dump.log --leave-running --shell-job
  must_fail PID-TAKEN criu restore -d -D "$CASE/host" -o restore.log --shell-job
  grep -qF "pid $pid is in use by \"umask\"" "$CASE/host/restore.log" || fail "it is not said who has the pid"
  kill -0 $pid || fail "the task that held the pid is gone"
  touch "$CASE/go"
  wait $pid
  [[ $(<"$CASE/result") == ok ]]
}

case_32_bit_code_in_a_64_bit_program() { # whose signal handlers may be of either
  mkdir -p "$CASE/work" "$CASE/host"
  cat >"$CASE/mixed.s" <<'END'
.globl _start
_start: sub $8, %rsp
  movl $0x23, 4(%rsp)
  movl $inside, (%rsp)
  lretl
.code32
inside: mov $29, %eax  # pause(2)
  int $0x80
  jmp inside
END
  as -o "$CASE/mixed.o" "$CASE/mixed.s" 2>/dev/null && ld -o "$CASE/mixed" "$CASE/mixed.o" ||
    { echo "skip: no assembler for it"; return 0; }
  "$CASE/mixed" </dev/null >/dev/null 2>&1 &
  local pid=$!
  echo $pid >>"$CASE/pids"
  _inside() { [[ $(readlink "/proc/$pid/exe") == "$CASE/mixed" && $(cut -d' ' -f1 "/proc/$pid/syscall") == 29 ]]; }
  until_true "the program" _inside
  local round
  for round in 1 2; do
    must_fail UNSUPPORTED criu dump -t $pid -D "$CASE/host" -o dump.log --shell-job -v4
    grep -qF "(mixed) is a 64-bit program that runs other code" "$CASE/host/dump.log" || fail "it is not said what is not supported"
    until_true "the program again" _inside
  done
  kill -KILL $pid
}

run_cases
