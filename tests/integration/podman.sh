#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Unmodified podman over runc, with storage of its own; what a user does, and what a user sees.
. "$(dirname "$0")/lib.sh"

# Keeps its numbers in memory and prints them; the last word marks its tasks as this case's.
PRINTER='i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done'

podman() {
  command podman --root "$CASE/storage" --runroot "$CASE/run" --tmpdir "$CASE/tmp" --runtime runc --cgroup-manager cgroupfs \
    --events-backend file "$@"
}
end_podman() {
  podman rm -f -t 0 -a
  podman pod rm -f -a
  podman network prune -f
} >/dev/null 2>&1
prepared() {
  command -v podman >/dev/null && command -v conmon >/dev/null || { echo "skip: podman is not installed"; exit 0; }
  at_exit end_podman
  # podman's own limits want CAP_SYS_RESOURCE.
  printf '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]\n' >"$CASE/containers.conf"
  export CONTAINERS_CONF=$CASE/containers.conf
  mkdir -p "$CASE/image/bin" "$CASE/image/tmp"
  cp "$(command -v busybox)" "$CASE/image/bin/busybox"
  local applet
  for applet in sh sleep echo cat true readlink; do ln -s busybox "$CASE/image/bin/$applet"; done
  tar -C "$CASE/image" -c . | podman import -q - localhost/counter:1 >/dev/null 2>"$CASE/said" || fail "import: $(<"$CASE/said")"
}
run() { # NAME [OPTION...]
  local name=$1
  shift
  must podman run -d --name "$name" "$@" localhost/counter:1 sh -c "$PRINTER" "$ID"
  goes_on "$name"
}
last() { podman logs "$1" 2>/dev/null | tail -n 1 | tr -dc 0-9; }
_prints_after() { local n; n=$(last "$1"); [[ -n $n ]] && ((n > $2)); }
goes_on() { # NAME [FROM]: it prints more than before, and did not begin anew
  local before=${2:-$(last "$1")}
  until_true "$1 to print more than ${before:-0}" _prints_after "$1" "${before:-0}"
}
# The log of a container that was never restarted: 1, 2, 3, ...
unbroken() { podman logs "$1" | tr -dc '0-9\n' | awk 'NF && $1 != NR {print "line " NR " is " $1; exit 1}' || fail "the log of $1 has a gap"; }
state() { podman inspect --format '{{.State.Status}}' "$1"; }
_is() { [[ $(state "$1") == "$2" ]]; }
podman_explain() { cat "$CASE"/storage/overlay-containers/*/userdata/{dump,restore}.log 2>/dev/null | grep Error | tail -n 2; }
does() { must podman "$@" || { podman_explain; return 1; }; }

case_checkpoint_and_restore() {
  prepared
  run one --network none
  local round before
  for round in 1 2 3; do
    before=$(last one)
    does container checkpoint one
    _is one exited || fail "it is $(state one) after the checkpoint"
    _no_tasks || fail "tasks are left: $(tasks_left)"
    does container restore one
    _is one running || fail "it is $(state one) after restore"
    goes_on one "$before"
  done
  unbroken one
  [[ $(podman exec one echo inside) == inside ]] || fail "exec does not work"
  must podman stop -t 0 one
  must podman rm one
  nothing_left
}

case_leave_running_keep_and_stats() {
  prepared
  run one --network none
  must podman container checkpoint --leave-running --print-stats one
  grep -q '"frozen_time": [1-9]' "$CASE/said" || fail "no statistics: $(<"$CASE/said")"
  _is one running
  goes_on one
  must podman container checkpoint --keep one
  must podman container restore --keep --print-stats one
  grep -q '"restore_time": [1-9]' "$CASE/said" || fail "no statistics: $(<"$CASE/said")"
  ls "$CASE"/storage/overlay-containers/*/userdata/{dump,restore}.log >/dev/null || fail "--keep kept no logs"
  goes_on one
  unbroken one
}

case_export_and_import_under_a_new_name() {
  prepared
  run one --network none
  local before
  before=$(last one)
  must podman container checkpoint --export "$CASE/one.tar.gz" one
  must podman rm one
  must podman container restore --import "$CASE/one.tar.gz" --name two
  _is two running
  goes_on two "$before"
  [[ $(podman exec two cat /proc/1/comm) == sh ]]
  must podman container restore --import "$CASE/one.tar.gz" --name three  # as often as one likes
  goes_on three "$before"
}

case_terminal() {
  prepared
  run one --network none -t
  does container checkpoint one
  does container restore one
  goes_on one
  [[ $(podman exec one readlink /proc/1/fd/0) == /dev/pts/0 ]] || fail "its terminal is $(podman exec one readlink /proc/1/fd/0)"
}

case_default_bridge() {
  prepared
  podman network inspect podman >/dev/null 2>&1 || { echo "skip: podman has no default network here"; return 0; }
  podman run --rm localhost/counter:1 true >/dev/null 2>"$CASE/said" || { echo "skip: the default bridge does not work here: $(tail -n 1 "$CASE/said")"; return 0; }
  run one
  local address
  address=$(podman inspect --format '{{.NetworkSettings.IPAddress}}' one)
  does container checkpoint one
  does container restore one
  goes_on one
  [[ -n $(podman inspect --format '{{.NetworkSettings.IPAddress}}' one) ]] || fail "it had $address and has no address"
}

# The two share the net, ipc and uts namespaces of the pod's infra container.
case_pod_of_two() {
  prepared
  must podman pod create --name pod --network none --infra-image localhost/counter:1 --infra-command 'sleep 1000000'
  run one --pod pod
  run two --pod pod
  local name
  for name in one two; do does container checkpoint "$name"; done
  for name in one two; do does container restore "$name"; done
  goes_on one
  goes_on two
  unbroken one
  local type
  for type in net ipc uts; do
    [[ $(podman exec one readlink /proc/1/ns/$type) == "$(podman exec two readlink /proc/1/ns/$type)" ]] ||
      fail "the $type namespaces of the pod's containers differ"
  done
}

case_failed_checkpoint_leaves_it_running() {
  prepared
  # Before it prints anything it holds a file of a process that has ended.
  local held='sleep 1 & exec 5</proc/$!/stat; wait'
  must podman run -d --name one --network none localhost/counter:1 sh -c "$held; $PRINTER" "$ID"
  goes_on one
  podman container checkpoint one >"$CASE/said" 2>&1 && fail "a file of a process that has ended was checkpointed"
  _is one running || fail "it is $(state one)"
  goes_on one
}

run_cases
