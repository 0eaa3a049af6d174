# SPDX-License-Identifier: Apache-2.0
# What the integration scripts share: a bundle, its own container ids, waiting by event, and cleaning up what
# they started and nothing else. A script defines functions case_NAME and ends with `run_cases`.
# A case is a subshell; it fails by `fail REASON` or by any command that fails.

: "${STASIS_SOURCE:=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}"
: "${STASIS_BUILD:=$STASIS_SOURCE/build}"
export STASIS_SOURCE STASIS_BUILD LC_ALL=C
export PATH=$STASIS_BUILD/libexec/stasis:$STASIS_BUILD/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
SUPPORT=$STASIS_SOURCE/tests/support
TOPIC=$(basename "$0" .sh)
HANG=${STASIS_TEST_HANG:-60}  # seconds; ends only what hangs

# What the caller left open would shift the numbers that the engine gets, from one machine to the next.
for fd in /proc/self/fd/*; do
  fd=${fd##*/}
  ((fd <= 2 || fd == 255)) || eval "exec $fd>&-"
done

fail() { echo "$*"; exit 1; }
# What a case undoes by itself; whether that works says nothing about the case (podman rm -f loses a race with
# podman's own clean-up now and then).
at_exit() { trap "status=\$?; set +e; trap - ERR; $1; exit \$status" EXIT; }

# until_true WHAT COMMAND...: waits for it.
until_true() {
  local what=$1 end=$((SECONDS + HANG))
  shift
  until "$@"; do
    ((SECONDS < end)) || fail "waited in vain for: $what"
    sleep 0.02
  done
}

# Runs a command that must fail with one of the codes (an extended regexp after STASIS-E-); text stays in $CASE/said.
must_fail() {
  local codes=$1 status=0
  shift
  "$@" >"$CASE/said" 2>&1 </dev/null || status=$?
  ((status != 0)) || fail "${ABOUT:+$ABOUT: }this should have failed: $*"
  ((status < 124)) || fail "status $status of $*: $(tail -n 3 "$CASE/said" | tr '\n' ' ')"
  grep -qE "STASIS-E-($codes)" "$CASE/said" || grep -qsE "STASIS-E-($codes)" "$CASE"/*/*.log ||
    fail "no STASIS-E-($codes) in what it said: $(tail -n 3 "$CASE/said" | tr '\n' ' ')"
}
must() {
  "$@" >"$CASE/said" 2>&1 </dev/null || fail "status $? of $*: $(tail -n 5 "$CASE/said" | tr '\n' ' ') $(explain)"
}
# The error lines of whatever logs the case has.
explain() {
  find "$CASE" -name '*.log' -exec grep -hE 'STASIS-E-|[Ee]rror' {} + 2>/dev/null | tail -n 3 | tr '\n' ' '
}

# --- bundles and containers. $ID is the container of the case, $BUNDLE its directory, $FILES the host side of /files.
COUNTER='i=0; while :; do i=$((i+1)); echo $i >/files/n.new; mv /files/n.new /files/n; sleep 0.02; done'

# make_bundle [make_bundle.py OPTIONS] [SHELL-COMMAND]: default is the counter; /files is a bind mount.
make_bundle() {
  local options=() command
  while [[ ${1:-} == --* ]]; do
    options+=("$1")
    [[ $1 == --readonly || $1 == --terminal || $1 == --cgroup-namespace ]] || { shift; options+=("$1"); }
    shift
  done
  command=${1:-$COUNTER}
  mkdir -p "$BUNDLE" "$FILES"
  /usr/bin/python3 "$SUPPORT/make_bundle.py" "$BUNDLE" --bind "$FILES:/files" --cgroup "/$ID" "${options[@]}" -- \
    sh -c "$command" "$ID" || fail "cannot make a bundle"
}
start() {
  echo "$ID" >>"$CASE/containers"
  # Its standard error is the container's: a file there would lie outside the container.
  (cd "$BUNDLE" && runc --log "$CASE/run.err" run -d "$ID") </dev/null >/dev/null 2>&1 || fail "runc run: $(tail -n 1 "$CASE/run.err")"
  until_true "the container to count" test -s "$FILES/n"
}
status_of() { runc state "${1:-$ID}" 2>/dev/null | sed -n 's/.*"status": "\(.*\)".*/\1/p'; }
pid_of() { runc state "${1:-$ID}" 2>/dev/null | sed -n 's/.*"pid": \([0-9]*\).*/\1/p'; }
count() { cat "$FILES/n" 2>/dev/null || echo 0; }
_more_than() { (($(count) > $1)); }
# The counter goes on, from where it was.
counts_on() {
  local now
  now=$(count)
  ((now >= ${1:-0})) || fail "the counter is at $now and was at $1 before"
  until_true "the counter to go on from $now" _more_than "$now"
}
# A process of the host, without a container, that counts into $FILES/n; $PID. No children: their zombies could hold its session.
host_counter() {
  mkdir -p "$FILES" "$CASE/work" "$CASE/images"
  setsid /usr/bin/python3 -c 'import os, sys, time
os.closerange(3, 4096)
n = 0
while True:
    n += 1
    with open(sys.argv[2] + ".new", "w") as file:
        file.write(str(n))
    os.rename(sys.argv[2] + ".new", sys.argv[2])
    time.sleep(0.02)' "$ID" "$FILES/n" </dev/null >/dev/null 2>&1 &
  PID=$!
  echo "$PID" >>"$CASE/pids"
  until_true "the process to count" test -s "$FILES/n"
}
# stasis checkpoint of the container; runc is told to forget it.
take() {
  must stasis checkpoint "$ID" --images-dir "$CASE/images" --work-dir "$CASE/work" -o dump.log -v4 "$@"
  until_true "the tasks to go" _no_tasks
  must runc delete -f "$ID"
}
# stasis restore --detach; $PID is its root.
bring() {
  must stasis restore --images-dir "$CASE/images" --work-dir "$CASE/work" -o restore.log -v4 --detach --pidfile "$CASE/pid" "$@"
  PID=$(<"$CASE/pid")
  rm -f "$CASE/pid"
  echo "$PID" >>"$CASE/pids"
}
# crun 1.8 refuses a host whose v2 hierarchy beside v1 has controllers: the script starts again in a mount namespace
# where it is hidden. hide_unified "$@" comes first.
hide_unified() {
  [[ -n $(cat /sys/fs/cgroup/unified/cgroup.controllers 2>/dev/null) ]] || return 0
  [[ -n ${STASIS_TEST_HIDDEN:-} ]] || STASIS_TEST_HIDDEN=1 exec unshare -m bash "$0" "$@"
  umount /sys/fs/cgroup/unified
  mount -t tmpfs none /sys/fs/cgroup/unified  # crun makes directories there all the same
}
# For several restores of the same images: a program may have had a file open that the next life renames.
remember_files() { rm -rf "$CASE/then" && cp -a "$FILES" "$CASE/then"; }
files_as_then() { find "$FILES" -mindepth 1 -delete && cp -a "$CASE/then/." "$FILES/"; }
checkpoint() { must runc checkpoint --image-path "$CASE/images" --work-path "$CASE/work" "$@" "$ID"; }
restore() {
  (cd "$BUNDLE" && runc --log "$CASE/restore.err" restore -d --image-path "$CASE/images" --work-path "$CASE/work" "$@" "$ID") \
    </dev/null >/dev/null 2>&1 || fail "runc restore: $(tail -n 2 "$CASE/restore.err" | tr '\n' ' ') $(explain)"
}
is_running() { [[ $(status_of) == running ]] || fail "runc says the container is '$(status_of)', not running"; }
is_absent() { [[ -z $(status_of) ]] || fail "runc still lists the container as $(status_of)"; }

# What a container leaves behind; the marks are its id in a command line, a cgroup name, a mount below $CASE.
tasks_left() {
  local file
  for file in /proc/[0-9]*/cmdline; do
    [[ ${file%/cmdline} == "/proc/$BASHPID" ]] && continue
    { tr '\0' '\n' <"$file"; } 2>/dev/null | grep -qxF "$ID" && { file=${file%/cmdline}; echo "${file#/proc/}"; }
  done
}
cgroups_left() { find /sys/fs/cgroup -maxdepth 3 -type d -name "*$ID*" 2>/dev/null; }
mounts_left() { awk '{print $5}' /proc/self/mountinfo | grep -F "$CASE" | grep -vxF "${ALLOWED_MOUNT:-none}"; }
_no_tasks() { [[ -z $(tasks_left) ]]; }
nothing_left() {
  until_true "the tasks to go ($(tasks_left | tr '\n' ' '))" _no_tasks
  [[ -z $(cgroups_left) ]] || fail "cgroups left: $(cgroups_left | tr '\n' ' ')"
  [[ -z $(mounts_left) ]] || fail "mounts left: $(mounts_left | tr '\n' ' ')"
}
# As it was: running, not frozen, not traced, still counting, and fit for another checkpoint.
unharmed() {
  local pid
  is_running
  pid=$(pid_of)
  [[ $(awk '/^TracerPid/ {print $2}' "/proc/$pid/status") == 0 ]] || fail "the container is still traced"
  local freezer=/sys/fs/cgroup/freezer/$ID/freezer.state
  [[ ! -e $freezer || $(<"$freezer") == THAWED ]] || fail "the container is frozen"
  counts_on
  rm -rf "$CASE/again"
  must runc checkpoint --leave-running --image-path "$CASE/again" --work-path "$CASE/again-work" "$ID"
  counts_on
}
no_checkpoint_in() {
  [[ ! -e $1/inventory.img ]] || fail "there is an inventory.img after a failure"
  local left
  left=$(find "$1" -mindepth 1 ! -name '*.log' ! -name 'stats-*' ! -name descriptors.json 2>/dev/null | tr '\n' ' ')
  [[ -z $left ]] || fail "left in the image directory: $left"
}

cleanup_case() {
  local id pid target
  set +e
  if [[ -f $CASE/containers ]]; then
    sort -u "$CASE/containers" | while read -r id; do
      [[ -n $(status_of "$id") ]] && { runc resume "$id"; runc delete -f "$id"; } >/dev/null 2>&1
    done
  fi
  [[ -f $CASE/pids ]] && while read -r pid; do kill -KILL "$pid" 2>/dev/null; done <"$CASE/pids"
  for pid in $(tasks_left); do kill -KILL "$pid" 2>/dev/null; done
  for target in $(awk '{print $5}' /proc/self/mountinfo | grep -F "$CASE" | sort -r); do umount -l "$target" 2>/dev/null; done
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    [[ -z $(cgroups_left) ]] && break
    cgroups_left | sort -r | while read -r target; do find "$target" -depth -type d -exec rmdir {} + 2>/dev/null; done
    sleep 0.05
  done
  rm -rf "$CASE"
}

# Cases in the order of their definition; output of a case is shown only as the reason of a failure.
run_cases() {
  local name bad=0 status reason number=0
  local names
  mapfile -t names < <(sed -n 's/^case_\([a-z0-9_]*\)().*/\1/p' "$0")
  if [[ -n ${STASIS_TEST_LIST:-} ]]; then
    printf "$TOPIC %s\n" "${names[@]}"
    return 0
  fi
  [[ $(command -v criu) == "$STASIS_BUILD/libexec/stasis/criu" ]] || { echo "FAIL $TOPIC: the drop-in is not built in $STASIS_BUILD"; return 1; }
  for name in "${names[@]}"; do
    [[ "$TOPIC $name" == *"${STASIS_TEST_FILTER:-}"* ]] || continue
    ((++number))
    CASE=$(mktemp -d "/tmp/stasis-it-XXXXXX")
    chmod 755 "$CASE"
    ID=stasis-it-$$-$number BUNDLE=$CASE/bundle FILES=$CASE/files
    trap 'cleanup_case; exit 1' TERM INT HUP
    # To a file: what a case leaves in the background may hold its output open. No `if`: that would switch -e off.
    # Commands that fail without a word are named.
    (set -eE -o pipefail; trap 'echo "line $LINENO: $BASH_COMMAND" >>"$CASE.why"' ERR; "case_$name") >"$CASE.out" 2>&1 </dev/null
    status=$?
    reason=$(<"$CASE.out")
    [[ -n $reason ]] || reason=$(tail -n 4 "$CASE.why" 2>/dev/null)
    rm -f "$CASE.out" "$CASE.why"
    if ((status == 0)); then
      if [[ $reason == skip:* ]]; then echo "skip $TOPIC $name: ${reason#skip: }"; else echo "ok $TOPIC $name"; fi
    else
      echo "FAIL $TOPIC $name: $(tail -n 4 <<<"$reason" | tr '\n' ' ' | cut -c1-700)"
      bad=1
    fi
    cleanup_case
    trap - TERM INT HUP
  done
  return $bad
}
