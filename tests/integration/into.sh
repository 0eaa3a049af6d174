#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# stasis restore --into RUNTIME: containers that crun and runc make themselves, with the images of one of runc's.
. "$(dirname "$0")/lib.sh"
hide_unified "$@"

eval "$(declare -f cleanup_case | sed '1s/cleanup_case/cleanup_runc/')"
cgroups_left() { find /sys/fs/cgroup -maxdepth 3 -type d -name "*$ID*" -not -path '*/unified/*' 2>/dev/null; }
cleanup_case() {
  local runtime
  for runtime in crun runc; do "$runtime" delete -f "$ID-new" >/dev/null 2>&1; done
  cleanup_runc
}

# The counter, with files in two tmpfs; checkpointed, and forgotten by runc.
SETUP='echo kept >/scratch/file; mkdir /scratch/dir; mkdir /dev/shm/dir; ln -s /nowhere /dev/shm/link; rm /dev/full; '
taken() {
  mkdir -p "$CASE/work"
  make_bundle --tmpfs /scratch "$@" "$SETUP${COMMAND:-$COUNTER}"
  [[ -z ${EDIT:-} ]] || /usr/bin/python3 -c "import json, sys
path = sys.argv[1] + '/config.json'
config = json.load(open(path))
$EDIT
json.dump(config, open(path, 'w'))" "$BUNDLE"
  start
  until_true "the container's files" test -L "/proc/$(pid_of)/root/dev/shm/link"
  must stasis checkpoint "$ID" -D "$CASE/images" --work-dir "$CASE/work" -o dump.log -v4
  until_true "the tasks to go" _no_tasks
  remember_files
  must runc delete -f "$ID"
}
into() { # into RUNTIME [OPTION...]
  local runtime=$1
  shift
  stasis restore -D "$CASE/images" --work-dir "$CASE/work" -o restore.log -v4 --bundle "$BUNDLE" --into "$runtime" --as "$ID-new" "$@"
}
new_pid() { "$1" state "$ID-new" 2>/dev/null | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p'; }
new_status() { "$1" state "$ID-new" 2>/dev/null | sed -n 's/.*"status": *"\([a-z]*\)".*/\1/p'; }
_gone() { [[ -z $(new_status "$1") ]]; }
_stopped() { [[ $(new_status "$1") == stopped ]]; }
no_stage() { [[ -z $(compgen -G '/run/stasis-into.*') ]] || fail "left: $(compgen -G '/run/stasis-into.*' | tr '\n' ' ')"; }
nothing_made() { # in RUNTIME
  until_true "$1 to forget the container" _gone "$1"
  nothing_left
  until_true "the staged directory to go" eval '[[ -z $(compgen -G "/run/stasis-into.*") ]]'
}
inside() { timeout 20 "$1" exec "$ID-new" "${@:2}" </dev/null; }
field() { awk -v name="$1:" '$1 == name {print $2}'; }

_check_runtime() { # RUNTIME: everything that one expects of a container of its own
  local runtime=$1 pid before
  before=$(count)
  must into "$runtime" --detach
  counts_on "$before"
  [[ $(new_status "$runtime") == running ]] || fail "$runtime says $(new_status "$runtime")"
  "$runtime" list | grep -q "^$ID-new .*running" || fail "$runtime list: $("$runtime" list)"
  pid=$(new_pid "$runtime")
  grep -q "[:,]pids:/$ID\$\|^0::/$ID\$" "/proc/$pid/cgroup" || fail "cgroups: $(tr '\n' ' ' <"/proc/$pid/cgroup")"
  no_stage
  ! grep -F .stasis "/proc/$pid/mountinfo" || fail "the scaffold is still mounted"
  ! inside "$runtime" ls -a /dev | grep -F .stasis || fail "the scaffold's directory is still there"
  [[ $(inside "$runtime" cat /scratch/file) == kept ]] || fail "the tmpfs is not filled"
  inside "$runtime" test -d /scratch/dir -a -d /dev/shm/dir -a -L /dev/shm/link -a -c /dev/null -a -d /dev/pts -a -e /dev/stdin ||
    fail "files are missing: $(inside "$runtime" ls -la /dev /dev/shm /scratch)"
  ! inside "$runtime" test -e /dev/full || fail "what the container had removed is there again"
  # What `exec` may do is what the bundle says, not what the waiting process could.
  inside "$runtime" cat /proc/self/status >"$CASE/exec"
  local set
  for set in CapPrm CapEff CapBnd; do
    [[ $(field $set <"$CASE/exec") == 0000000020000420 ]] || fail "$set of an exec is $(field $set <"$CASE/exec")"
    [[ $(field $set <"/proc/$pid/status") == 0000000020000420 ]] || fail "$set of the root is $(field $set <"/proc/$pid/status")"
  done
  [[ $(field NoNewPrivs <"/proc/$pid/status") == 1 ]] || fail "the root may gain privileges"
  [[ $(awk '/open files/ {print $4, $5}' "/proc/$pid/limits") == "1024 1024" ]] || fail "limits: $(grep files "/proc/$pid/limits")"
  "$runtime" kill "$ID-new" KILL
  until_true "the container to stop" _stopped "$runtime"
  must "$runtime" delete "$ID-new"
  nothing_made "$runtime"
}

case_crun() {
  taken
  _check_runtime crun
  echo 0 >"$FILES/n"
  _check_runtime crun  # the same images, the same name
}

case_runc() {
  taken
  _check_runtime runc
}

case_with_cgroup_namespace() {
  EDIT="if not any(n['type'] == 'cgroup' for n in config['linux']['namespaces']): config['linux']['namespaces'].append({'type': 'cgroup'})" taken
  _check_runtime crun
}

_pids() { # of the container's tasks, as they see them, with parent, session and name
  local pid
  for pid in $(cat "/sys/fs/cgroup/pids/$ID/cgroup.procs" "/sys/fs/cgroup/$ID/cgroup.procs" 2>/dev/null); do
    [[ $(<"/proc/$pid/comm") =~ ^(sleep|mv)$ ]] || echo "$(awk '/^NS/ {print $NF}' "/proc/$pid/status" | tr '\n' ' ') $(<"/proc/$pid/comm")"
  done 2>/dev/null | sort
}
case_process_tree() {
  mkdir -p "$CASE/work"
  make_bundle "tail -f /dev/null & (setsid tail -f /dev/null &) ; yes | cat >/dev/null & $COUNTER"
  start
  # The counter's shell forks: for a moment there is one more of it.
  local before
  _five() { before=$(_pids); [[ $(wc -l <<<"$before") == 5 ]]; }
  _same() { [[ $(_pids) == "$before" ]]; }
  until_true "five processes" _five
  must stasis checkpoint "$ID" -D "$CASE/images" --work-dir "$CASE/work"
  must runc delete -f "$ID"
  must into crun --detach
  counts_on
  until_true "the same processes: $before" _same
}

case_copy_on_write() { # the live program looks itself at what its processes share
  local attempt
  # Where the runtime's process has by chance something at the same addresses, or pages were reclaimed, nothing is shared.
  for attempt in 1 2 3; do
    rm -rf "$CASE/images" "$FILES"
    mkdir -p "$CASE/work" "$FILES"
    cp "$STASIS_BUILD/live/copy_on_write" "$FILES/program"
    make_bundle "echo 1 >/files/n; exec /files/program /files/ready /files/go /files/result"
    start
    until_true "the program" test -e "$FILES/ready"
    must stasis checkpoint "$ID" -D "$CASE/images" --work-dir "$CASE/work"
    must runc delete -f "$ID"
    must into crun --detach
    touch "$FILES/go"
    until_true "the program's word" test -s "$FILES/result"
    [[ $(<"$FILES/result") != ok ]] || return 0
    crun delete -f "$ID-new"
  done
  fail "$(<"$FILES/result")"
}

case_exec_has_the_bundles_seccomp() {
  local edit="config['linux']['seccomp'] = {'defaultAction': 'SCMP_ACT_ALLOW', 'architectures': ['SCMP_ARCH_X86_64'],
  'syscalls': [{'names': ['swapon'], 'action': 'SCMP_ACT_ERRNO'}]}"
  EDIT=$edit taken
  must into crun --detach
  counts_on
  [[ $(field Seccomp_filters <"/proc/$(new_pid crun)/status") == 1 ]] || fail "the root has $(field Seccomp_filters <"/proc/$(new_pid crun)/status") filters"
  [[ $(inside crun cat /proc/self/status | field Seccomp) == 2 ]] || fail "an exec has no filter"
  must crun delete -f "$ID-new"
  nothing_made crun
  files_as_then
  must into runc --detach
  counts_on
  [[ $(field Seccomp_filters <"/proc/$(new_pid runc)/status") == 1 ]] || fail "runc: the root has $(field Seccomp_filters <"/proc/$(new_pid runc)/status") filters"
  [[ $(inside runc cat /proc/self/status | field Seccomp) == 2 ]] || fail "runc: an exec has no filter"
  must runc delete -f "$ID-new"
  nothing_made runc
}

# The ports are those of the images, and who asks there is told the socket's own TTL.
_ports() { nsenter -t "$1" -n cat /proc/net/tcp /proc/net/udp | awk '$2 ~ /:1E61$/ && ($4 == "0A" || $4 == "07") {n++} END {exit n != 2}'; }
_answers() {
  timeout 20 nsenter -t "$1" -n /usr/bin/python3 -c 'import socket
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    with socket.socket(socket.AF_INET, kind) as s:
        s.settimeout(15)
        s.connect(("127.0.0.1", 7777))
        s.send(b"ttl?")
        said = s.recv(99)
        assert said == b"77", said'
}
case_listening_sockets() {
  mkdir -p "$FILES"
  cat >"$FILES/server" <<'PY'
import os, select, socket
tcp, udp = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
for s in tcp, udp:
    s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 77)
    s.bind(("127.0.0.1", 7777))
tcp.listen(5)
n = 0
while True:
    n += 1
    with open("/files/n.new", "w") as file: file.write(str(n))
    os.rename("/files/n.new", "/files/n")
    for s in select.select([tcp, udp], [], [], 0.02)[0]:
        ttl = b"%d" % s.getsockopt(socket.IPPROTO_IP, socket.IP_TTL)
        if s is udp: s.sendto(ttl, s.recvfrom(99)[1])
        else:
            with s.accept()[0] as peer: peer.send(ttl)
PY
  SETUP="${SETUP}exec /usr/bin/python3 -S /files/server; " taken --bind /usr:/usr --bind /lib:/lib --bind /lib64:/lib64
  local runtime
  for runtime in crun runc; do
    files_as_then
    must into "$runtime" --detach
    counts_on
    _ports "$(new_pid "$runtime")" || fail "$runtime: $(nsenter -t "$(new_pid "$runtime")" -n cat /proc/net/tcp /proc/net/udp)"
    must _answers "$(new_pid "$runtime")"
    must "$runtime" delete -f "$ID-new"
    nothing_made "$runtime"
  done
}

case_waits_and_forgets() {
  taken
  local engine status=0
  into crun --pidfile "$CASE/pid" </dev/null >"$CASE/said" 2>&1 &
  engine=$!
  echo "$engine" >>"$CASE/pids"
  until_true "the pid file" test -s "$CASE/pid"
  counts_on
  kill -0 "$engine" || fail "stasis restore did not wait: $(<"$CASE/said")"
  crun kill "$ID-new" KILL
  wait "$engine" || status=$?
  ((status == 137)) || fail "status $status for a container that was killed: $(<"$CASE/said")"
  nothing_made crun
}

case_corrupt_images() {
  taken
  local file runtime
  file=$(find "$CASE/images" -name 'pages-*.img' | head -n 1)
  truncate -s -4096 "$file"
  for runtime in crun runc; do
    must_fail 'IMAGE-[A-Z]*' into "$runtime" --detach
    nothing_made "$runtime"
  done
}

# Found by the waiting process only: the counter's shell is not the file that it was.
case_failure_in_the_container() {
  taken
  echo more >>"$BUNDLE/rootfs/bin/busybox"
  must_fail FILE-MISSING into crun --detach
  nothing_made crun
}

case_missing_mount() {
  taken
  /usr/bin/python3 -c "import json, sys
config = json.load(open(sys.argv[1]))
config['mounts'] = [m for m in config['mounts'] if m['destination'] != '/scratch']
json.dump(config, open(sys.argv[1], 'w'))" "$BUNDLE/config.json"
  local runtime
  for runtime in crun runc; do
    must_fail MOUNT-TARGET into "$runtime" --detach
    grep -q /scratch "$CASE/said" || fail "it does not name the mount: $(<"$CASE/said")"
    nothing_made "$runtime"
  done
}

case_killed_engine() {
  taken
  cat >"$CASE/script" <<'SCRIPT'
#!/bin/sh
[ "$CRTOOLS_SCRIPT_ACTION" != "$KILL_AT" ] || kill -KILL $PPID
SCRIPT
  chmod 755 "$CASE/script"
  local runtime stage status
  for runtime in crun runc; do
    for stage in pre-restore post-restore; do
      status=0
      KILL_AT=$stage into "$runtime" --detach --action-script "$CASE/script" </dev/null >"$CASE/said" 2>&1 || status=$?
      ((status == 137)) || fail "killed at $stage, status $status: $(<"$CASE/said")"
      nothing_made "$runtime"
    done
  done
}

case_refused_before_anything_is_made() {
  taken
  must_fail USAGE stasis restore -D "$CASE/images" --bundle "$BUNDLE" --into crun
  must_fail USAGE stasis restore -D "$CASE/images" --into crun --as "$ID-new"
  must_fail USAGE into crun --cgroup-root /elsewhere
  must_fail USAGE into crun --exec-cmd -- sleep 1
  must_fail USAGE into podman  # needs no bundle but an image
  must_fail UNSUPPORTED into youki
  must_fail BAD-OPTION stasis restore -D "$CASE/images" --bundle "$BUNDLE" --into crun --as ../x
  echo /lib/evil.so >"$BUNDLE/rootfs/etc/ld.so.preload"
  must_fail UNSUPPORTED into crun --detach
  rm "$BUNDLE/rootfs/etc/ld.so.preload"
  # A container of that name is not touched.
  must into crun --detach
  must_fail BAD-OPTION into crun --detach
  counts_on
  must crun delete -f "$ID-new"
  sed -i 's/"destination": *"\/dev",/"destination": "\/device",/' "$BUNDLE/config.json"
  must_fail UNSUPPORTED-MOUNT into crun --detach
  nothing_made crun
}

run_cases
