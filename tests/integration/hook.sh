#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Containers that come up restored by hooks: crun run, runc run and podman run, with no stasis command; and
# stasis restore --into podman.
. "$(dirname "$0")/lib.sh"
hide_unified "$@"

eval "$(declare -f cleanup_case | sed '1s/cleanup_case/cleanup_runc/')"
cgroups_left() { find /sys/fs/cgroup -maxdepth 3 -type d -name "*$ID*" -not -path '*/unified/*' 2>/dev/null; }
cleanup_case() {
  local runtime
  for runtime in crun runc; do "$runtime" delete -f "$ID-new" >/dev/null 2>&1; done
  [[ ! -d $CASE/storage ]] || end_podman
  cleanup_runc
}
edit() { # FILE PYTHON: `config` is what it holds
  /usr/bin/python3 -c "import json, sys
config = json.load(open(sys.argv[1]))
$2
json.dump(config, open(sys.argv[1], 'w'))" "$1"
}
oci_restore() { "$STASIS_SOURCE/runtime-hooks/oci-restore" "$@"; }

# The counter, with a file in a tmpfs and a filter; checkpointed, and forgotten by runc; its bundle is given the hooks.
taken() {
  make_bundle --tmpfs /scratch "echo kept >/scratch/file; $COUNTER"
  edit "$BUNDLE/config.json" "config['linux']['seccomp'] = {'defaultAction': 'SCMP_ACT_ALLOW', 'architectures': ['SCMP_ARCH_X86_64'],
  'syscalls': [{'names': ['swapon'], 'action': 'SCMP_ACT_ERRNO'}]}
config['annotations'] = {'io.stasis.restore': '$CASE/images'}"
  start
  must stasis checkpoint "$ID" -D "$CASE/images"
  until_true "the tasks to go" _no_tasks
  remember_files
  must runc delete -f "$ID"
  mv "$BUNDLE/config.json" "$CASE/plain.json"
  oci_restore precreate <"$CASE/plain.json" >"$BUNDLE/config.json"
}
# Its standard streams are the container's: nothing may wait for their end.
run_hooked() { (cd / && "$1" --log "$CASE/run.err" run -d --bundle "$BUNDLE" "$ID-new") </dev/null >/dev/null 2>&1; }
new_pid() { "$1" state "$ID-new" 2>/dev/null | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p'; }
new_status() { "$1" state "$ID-new" 2>/dev/null | sed -n 's/.*"status": *"\([a-z]*\)".*/\1/p'; }
_gone() { [[ -z $(new_status "$1") ]]; }
_no_stage() { [[ -z $(compgen -G '/run/stasis-into.*') ]]; }
nothing_made() {
  until_true "$1 to forget the container" _gone "$1"
  nothing_left
  until_true "the staged directory to go" _no_stage
  [[ ! -e /run/$1/$ID-new ]] || fail "left: /run/$1/$ID-new"
}
inside() { timeout 20 "$1" exec "$ID-new" "${@:2}" </dev/null; }
field() { awk -v name="$1:" '$1 == name {print $2}'; }
# runc starts the container only after its hooks: then the restore is still to come. The counter's own program says
# that it is over, and a file of the images' that it is not the bundle's.
_is_restored() { [[ $(tr '\0' ' ' <"/proc/$(new_pid "$1")/cmdline") == "sh -c "* && $(inside "$1" cat /scratch/file 2>/dev/null) == kept ]]; }

_check_runtime() {
  local runtime=$1 before pid set
  before=$(count)
  run_hooked "$runtime" || fail "$runtime run: $(tail -n 1 "$CASE/run.err") $(explain)"
  until_true "$runtime's container to be restored" _is_restored "$runtime"
  counts_on "$before"
  [[ $(new_status "$runtime") == running ]] || fail "$runtime says $(new_status "$runtime")"
  pid=$(new_pid "$runtime")
  until_true "the scaffold to go" eval "! grep -qF .stasis /proc/$pid/mountinfo"
  ! inside "$runtime" ls -a /dev | grep -F .stasis || fail "the scaffold's directory is still there"
  _no_stage || fail "left: $(compgen -G '/run/stasis-into.*')"
  inside "$runtime" cat /proc/self/status >"$CASE/exec"
  for set in CapPrm CapEff CapBnd; do
    [[ $(field $set <"$CASE/exec") == 0000000020000420 ]] || fail "$set of an exec is $(field $set <"$CASE/exec")"
    [[ $(field $set <"/proc/$pid/status") == 0000000020000420 ]] || fail "$set of the root is $(field $set <"/proc/$pid/status")"
  done
  [[ $(field Seccomp <"$CASE/exec") == 2 ]] || fail "an exec has no filter"
  # crun does not give it to what it executes without a description of its own.
  [[ $runtime == crun || $(field NoNewPrivs <"$CASE/exec") == 1 ]] || fail "an exec may gain privileges"
  [[ $(field Seccomp_filters <"/proc/$pid/status") == 1 ]] || fail "the root has $(field Seccomp_filters <"/proc/$pid/status") filters"
  [[ $(inside "$runtime" sh -c 'echo $PATH $PWD') == "$(/usr/bin/python3 -c "import json
print(next(v[5:] for v in json.load(open('$CASE/plain.json'))['process']['env'] if v.startswith('PATH=')), '/')")" ]] ||
    fail "an exec has another environment: $(inside "$runtime" sh -c 'echo $PATH $PWD')"
  "$runtime" kill "$ID-new" KILL
  until_true "the container to stop" eval "[[ \$(new_status $runtime) == stopped ]]"
  must "$runtime" delete "$ID-new"
  nothing_made "$runtime"
}

case_crun_run() {
  taken
  _check_runtime crun
  files_as_then
  _check_runtime crun  # the same bundle, the same images
}

case_runc_run() {
  taken
  _check_runtime runc
  files_as_then
  _check_runtime runc
}

case_create_and_start() {
  taken
  local runtime before
  for runtime in crun runc; do
    files_as_then
    before=$(count)
    "$runtime" --log "$CASE/run.err" create --bundle "$BUNDLE" "$ID-new" </dev/null >/dev/null 2>&1 || fail "create: $(<"$CASE/run.err")"
    [[ $(count) == "$before" ]] || fail "$runtime: it runs before it is started"
    must "$runtime" start "$ID-new"
    until_true "$runtime's container to be restored" _is_restored "$runtime"
    counts_on "$before"
    must "$runtime" delete -f "$ID-new"
    nothing_made "$runtime"
  done
}

# What came up by a hook is a container like any other.
case_checkpoint_again() {
  taken
  local runtime
  for runtime in crun runc; do
    run_hooked "$runtime" || fail "$runtime run: $(tail -n 1 "$CASE/run.err") $(explain)"
    until_true "$runtime's container to be restored" _is_restored "$runtime"
    rm -rf "$CASE/images"
    counts_on
    must stasis checkpoint "$ID-new" -D "$CASE/images"
    must "$runtime" delete -f "$ID-new"
    nothing_made "$runtime"
  done
  _check_runtime crun
}

# Every runtime notices these by itself.
_fails_at_once() { # WHAT
  local runtime
  for runtime in crun runc; do
    rm -f "$CASE/run.err"
    ! run_hooked "$runtime" || fail "$1: $runtime run succeeded"
    nothing_made "$runtime"
  done
  grep -qE "${2:-STASIS-E}" "$CASE/run.err" || fail "$1: runc said $(tail -n 2 "$CASE/run.err")"
}
case_bad_images() {
  taken
  truncate -s -4096 "$(find "$CASE/images" -name 'pages-*.img' | head -n 1)"
  _fails_at_once "corrupt images" STASIS-E-IMAGE
  grep -q STASIS-E-IMAGE "$CASE/images/restore.log" || fail "nothing in restore.log"
  rm "$CASE/images/inventory.img"
  _fails_at_once "no inventory" STASIS-E-IMAGE-MISSING
  rm -r "$CASE/images"
  _fails_at_once "no images"
}

# Found by the waiting process only: the counter's shell is not the file that it was.
case_failure_in_the_container() {
  taken
  echo more >>"$BUNDLE/rootfs/bin/busybox"
  local runtime status
  for runtime in crun runc; do
    : >"$CASE/images/restore.log"
    run_hooked "$runtime" || true
    nothing_made "$runtime"
    grep -q STASIS-E-FILE-MISSING "$CASE/images/restore.log" || fail "$runtime: $(<"$CASE/images/restore.log")"
    status=0
    "$runtime" --log "$CASE/run.err" run --bundle "$BUNDLE" "$ID-new" </dev/null >/dev/null 2>&1 || status=$?
    ((status != 0)) || fail "$runtime run in the foreground succeeded"
    nothing_made "$runtime"
  done
}

# Between runc's create and start the engine waits, outside of any command.
_engine() {
  local pid
  for pid in $(pgrep -f 'oci-restore start'); do
    [[ $(<"/proc/$pid/comm") != stasis-janitor ]] || continue
    ! find "/proc/$pid/fd" -lname "$CASE/images" | grep -q . || echo "$pid"
  done 2>/dev/null
}
_no_engine() { [[ -z $(_engine) ]]; }
case_killed_engine() {
  taken
  runc --log "$CASE/run.err" create --bundle "$BUNDLE" "$ID-new" </dev/null >/dev/null 2>&1 || fail "create: $(<"$CASE/run.err")"
  until_true "the engine to wait" eval '[[ -n $(_engine) ]]'
  kill -KILL $(_engine)
  nothing_made runc
  # A container that is never started takes its engine along.
  runc --log "$CASE/run.err" create --bundle "$BUNDLE" "$ID-new" </dev/null >/dev/null 2>&1 || fail "create: $(<"$CASE/run.err")"
  until_true "the engine to wait" eval '[[ -n $(_engine) ]]'
  must runc delete -f "$ID-new"
  nothing_made runc
  until_true "the engine to end" _no_engine
}

_must_not_transform() { # CODE PYTHON
  cp "$CASE/plain.json" "$CASE/changed.json"
  edit "$CASE/changed.json" "$2"
  ! oci_restore precreate <"$CASE/changed.json" >"$CASE/out" 2>"$CASE/said" || fail "precreate took: $2"
  grep -q "STASIS-E-$1" "$CASE/said" || fail "$2: $(<"$CASE/said")"
  [[ ! -s $CASE/out ]] || fail "precreate wrote something"
}
case_precreate_refuses() {
  taken
  _must_not_transform BAD-DESCRIPTION "config['annotations'] = {}"
  _must_not_transform BAD-DESCRIPTION "config['annotations']['io.stasis.restore'] = 'images'"
  _must_not_transform BAD-DESCRIPTION "config['annotations']['io.stasis.restore'] = 5"
  _must_not_transform BAD-DESCRIPTION "config['annotations']['io.stasis.restore.work'] = './work'"
  _must_not_transform UNSUPPORTED-FILE "config['process']['terminal'] = True"
  _must_not_transform UNSUPPORTED-MOUNT "config['mounts'] = []"
  _must_not_transform UNSUPPORTED-NAMESPACE "config['linux']['namespaces'].append({'type': 'user'})"
  ! oci_restore precreate <"$BUNDLE/config.json" >"$CASE/out" 2>"$CASE/said" || fail "a description got the hooks twice"
  # Whoever edits the description afterwards: the hooks look again.
  edit "$BUNDLE/config.json" "config['annotations']['io.stasis.restore.original'] = config['annotations']['io.stasis.restore.original'].replace('$CASE/images', 'images')"
  _fails_at_once "a relative annotation" BAD-DESCRIPTION
  edit "$BUNDLE/config.json" "del config['annotations']['io.stasis.restore.original']"
  _fails_at_once "no original" BAD-DESCRIPTION
}

# --- podman
podman() { "$CASE/bin/podman" "$@"; }
end_podman() { podman rm -f -t 0 -a >/dev/null 2>&1; }
PRINTER='i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done'
with_podman() { # [RUNTIME]
  command -v podman >/dev/null && command -v conmon >/dev/null || { echo "skip: podman is not installed"; exit 0; }
  at_exit end_podman
  ALLOWED_MOUNT=$CASE/storage/overlay
  mkdir -p "$CASE/bin" "$CASE/image/bin" "$CASE/image/tmp" "$CASE/hooks.d"
  cat >"$CASE/bin/podman" <<WRAPPER
#!/bin/sh
exec $(type -P podman) --root $CASE/storage --runroot $CASE/run --tmpdir $CASE/tmp --runtime ${1:-runc} --cgroup-manager cgroupfs --events-backend file "\$@"
WRAPPER
  chmod 755 "$CASE/bin/podman"
  sed "s|/usr/bin/stasis|$STASIS_BUILD/bin/stasis|" "$STASIS_SOURCE/runtime-hooks/hooks.d/stasis-restore.json" >"$CASE/hooks.d/stasis-restore.json"
  cp "$(command -v busybox)" "$CASE/image/bin/busybox"
  local applet
  for applet in sh sleep echo cat true ls readlink; do ln -s busybox "$CASE/image/bin/$applet"; done
  tar -C "$CASE/image" -c . | podman import -q - localhost/counter:1 >/dev/null 2>"$CASE/said" || fail "import: $(<"$CASE/said")"
  podman run -d --name one "${PODMAN_OPTIONS[@]}" localhost/counter:1 sh -c "$PRINTER" "$ID" >/dev/null 2>"$CASE/said" || fail "run: $(<"$CASE/said")"
  until_true "one to print" _prints_after one 3
}
PODMAN_OPTIONS=(--network none --ulimit nofile=1024:1024 --ulimit nproc=1000:1000)
checkpoint_one() { stasis checkpoint one --runtime podman --runtime-root "$CASE/storage" -D "$CASE/images" "$@"; }
last() { podman logs "$1" 2>/dev/null | tail -n 1 | tr -dc 0-9; }
_prints_after() { local n; n=$(last "$1"); [[ -n $n ]] && ((n > $2)); }
state() { podman inspect --format '{{.State.Status}}' "$1" 2>/dev/null; }
_check_podman() { # NAME: it goes on from where the other was, and podman knows all of it
  until_true "$1 to print" _prints_after "$1" 3
  local first
  podman logs "$1" >"$CASE/log"
  first=$(head -n 1 "$CASE/log" | tr -dc 0-9)
  ((first > 3)) || fail "it began with $first"
  until_true "$1 to go on from $first" _prints_after "$1" "$first"
  [[ $(state "$1") == running ]] || fail "it is $(state "$1")"
  podman ps --format '{{.Names}}' | grep -qx "$1" || fail "podman ps does not list it"
  podman exec "$1" cat /proc/self/status >"$CASE/exec"
  [[ $(field CapEff <"$CASE/exec") == "$(podman exec one cat /proc/self/status | field CapEff)" ]] || fail "CapEff of an exec is $(field CapEff <"$CASE/exec")"
  [[ $(field Seccomp <"$CASE/exec") == 2 ]] || fail "an exec has no filter"
  ! podman exec "$1" ls -a /dev | grep -F .stasis || fail "the scaffold's directory is still there"
  _no_stage || fail "left: $(compgen -G '/run/stasis-into.*')"
}
_podman_new() { # OPTION...
  podman --hooks-dir "$CASE/hooks.d" run -d --annotation "io.stasis.restore=$CASE/images" --name new "${PODMAN_OPTIONS[@]}" "$@" localhost/counter:1 true
}

case_podman_run() {
  with_podman
  must checkpoint_one --leave-running
  must _podman_new
  _check_podman new
  # podman's own images; and a container that came up by the hook is checkpointed and restored as ever.
  must podman container checkpoint --keep new
  must podman container restore new
  until_true "new to be running" eval '[[ $(state new) == running ]]'
  [[ $(podman exec new cat /proc/self/status | field Seccomp) == 2 ]] || fail "after podman's restore an exec has no filter"
  must podman stop -t 0 new
  must podman rm new
  must podman stop -t 0 one
  nothing_left
}

# Debian's crun can neither checkpoint nor restore.
case_podman_over_crun() {
  with_podman crun
  must checkpoint_one --leave-running
  must _podman_new
  _check_podman new
  must podman restart -t 0 new  # without the hooks: the command that it was given
  until_true "new to end" eval '[[ $(state new) == exited ]]'
  must podman --hooks-dir "$CASE/hooks.d" restart -t 0 new
  until_true "new to be running" eval '[[ $(state new) == running ]]'
  must podman stop -t 0 new
  must podman rm new
}

case_podman_checkpoint() {
  with_podman
  must podman container checkpoint --keep one
  must podman start one  # beginning anew: what an exec may do is compared with it
  cp -r "$CASE"/storage/overlay-containers/*/userdata/checkpoint "$CASE/images"
  must _podman_new
  _check_podman new
}

case_podman_hook_fails() {
  with_podman
  must checkpoint_one
  truncate -s -4096 "$(find "$CASE/images" -name 'pages-*.img' | head -n 1)"
  ! _podman_new >"$CASE/said" 2>&1 || fail "podman run succeeded"
  grep -q STASIS-E-IMAGE-CORRUPT "$CASE/said" || fail "podman said $(<"$CASE/said")"
  [[ $(state new) != running ]] || fail "it runs"
  podman rm -f new >/dev/null 2>&1
  nothing_left
  _no_stage || fail "left: $(compgen -G '/run/stasis-into.*')"
}

case_into_podman() {
  with_podman
  local PATH=$CASE/bin:$PATH status=0
  must checkpoint_one --leave-running
  local into=(stasis restore -D "$CASE/images" --into podman --as new)
  must "${into[@]}" --detach -- "${PODMAN_OPTIONS[@]}" localhost/counter:1 true
  grep -q "^restored from $CASE/images as new of podman: pid [0-9]*$" "$CASE/said" || fail "it said $(<"$CASE/said")"
  [[ $(podman inspect --format '{{.State.Pid}}' new) == "$(sed -n 's/^restored.* pid //p' "$CASE/said")" ]] || fail "$(<"$CASE/said"): podman's is another pid"
  _check_podman new
  # The name is taken, by a container that must stay.
  must_fail RESTORE-FAILED "${into[@]}" --detach -- "${PODMAN_OPTIONS[@]}" localhost/counter:1 true
  [[ $(state new) == running ]] || fail "it is $(state new)"
  must podman stop -t 0 new
  must podman rm new
  # In the foreground it ends with podman's status.
  "${into[@]}" -- "${PODMAN_OPTIONS[@]}" localhost/counter:1 true </dev/null >"$CASE/foreground" 2>&1 &
  local engine=$!
  echo "$engine" >>"$CASE/pids"
  until_true "it to print" test -s "$CASE/foreground"
  must podman kill new
  wait "$engine" || status=$?
  ((status == 137)) || fail "status $status: $(tail -n 3 "$CASE/foreground")"
  must podman rm new
  _no_stage || fail "left: $(compgen -G '/run/stasis-into.*')"
}

case_into_podman_fails() {
  with_podman
  local PATH=$CASE/bin:$PATH
  must checkpoint_one
  local into=(stasis restore -D "$CASE/images" --into podman)
  must_fail USAGE "${into[@]}" --as new
  must_fail USAGE "${into[@]}" -- localhost/counter:1
  must_fail USAGE "${into[@]}" --as new --bundle "$CASE" -- localhost/counter:1
  must_fail USAGE "${into[@]}" --as new --tcp-established -- localhost/counter:1
  must_fail USAGE "${into[@]}" --as new --cgroup-root /x -- localhost/counter:1
  # Another program under the same name: found while it is restored.
  must podman run --name changed "${PODMAN_OPTIONS[@]}" localhost/counter:1 sh -c 'cd /bin; busybox cp busybox b; echo more >>b; busybox mv b busybox'
  must podman commit -q changed localhost/counter:2
  must_fail FILE-MISSING "${into[@]}" --as new --detach -- "${PODMAN_OPTIONS[@]}" localhost/counter:2 true
  [[ -z $(state new) ]] || fail "podman has a container that is $(state new)"
  truncate -s -4096 "$(find "$CASE/images" -name 'pages-*.img' | head -n 1)"
  must_fail IMAGE-CORRUPT "${into[@]}" --as new --detach -- "${PODMAN_OPTIONS[@]}" localhost/counter:1 true
  [[ -z $(state new) ]] || fail "podman has a container that is $(state new)"
  nothing_left
  _no_stage || fail "left: $(compgen -G '/run/stasis-into.*')"
}

run_cases
