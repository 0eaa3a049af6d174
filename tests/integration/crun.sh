#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Containers of unmodified crun, which Debian builds without any checkpoint of its own: ours needs none.
. "$(dirname "$0")/lib.sh"

MISSING=
[[ -x $(command -v crun) ]] || MISSING="skip: crun is not installed"

# crun refuses a host with controllers in both cgroup versions; in a mount namespace of its own it sees one.
crun_alone() {
  if grep -qs . /sys/fs/cgroup/unified/cgroup.controllers; then
    unshare -m --propagation private sh -c 'umount /sys/fs/cgroup/unified && exec crun "$@"' crun "$@"
  else
    crun "$@"
  fi
}
crun_start() {
  echo "$ID" >>"$CASE/crun"
  (cd "$BUNDLE" && crun_alone --log "$CASE/run.err" run -d "$ID") </dev/null >/dev/null 2>&1 || fail "crun run: $(tail -n 1 "$CASE/run.err")"
  until_true "the container to count" test -s "$FILES/n"
}
# What lib.sh does not clean up: crun's own records.
forget() { [[ ! -f $CASE/crun ]] || while read -r id; do crun_alone delete -f "$id" >/dev/null 2>&1 || true; done <"$CASE/crun"; }
take() {
  must stasis checkpoint "$ID" -D "$CASE/images" -o dump.log -v4 "$@"
  until_true "the tasks to go" _no_tasks
  must crun_alone delete "$ID"
}
bring() {
  must stasis restore -D "$CASE/images" -o restore.log -v4 --detach --pidfile "$CASE/pid" "$@"
  PID=$(<"$CASE/pid")
  echo "$PID" >>"$CASE/pids"
}
cgroups_are() {
  local names path seen=0
  while IFS=: read -r _ names path; do
    [[ -n $names || ! -e /sys/fs/cgroup/unified ]] || continue
    [[ $path == "$1" ]] || fail "${names:-the unified hierarchy} is in $path, not $1"
    ((++seen))
  done <"/proc/$PID/cgroup"
  ((seen > 0)) || fail "no cgroups"
}

case_found_and_restored() {
  [[ -z $MISSING ]] || { echo "$MISSING"; return 0; }
  at_exit forget
  make_bundle
  crun_start
  crun checkpoint "$ID" 2>&1 | grep -q 'unknown command' || echo "this crun can checkpoint by itself"
  must stasis check "$ID"
  must stasis plan "$ID"
  grep -q 'runtime: crun' "$CASE/said" && grep -qF "config.json \$.mounts[" "$CASE/said" || fail "the plan: $(<"$CASE/said")"
  take
  local before
  before=$(count)
  bring --bundle "$BUNDLE"
  counts_on "$before"
  kill -KILL "$PID"
  nothing_left
}

case_as_another_container() {
  [[ -z $MISSING ]] || { echo "$MISSING"; return 0; }
  at_exit forget
  make_bundle
  crun_start
  take
  local before
  before=$(count)
  # A bundle of its own: new cgroups, in systemd's words, and another directory behind /files.
  mkdir -p "$CASE/new" "$CASE/moved"
  cp "$FILES/n" "$CASE/moved/n"
  sed "s#\"cgroupsPath\": *\"[^\"]*\"#\"cgroupsPath\": \"-.slice:new:\"#; s#\"path\": \"rootfs\"#\"path\": \"$BUNDLE/rootfs\"#" \
    "$BUNDLE/config.json" >"$CASE/new/config.json"
  grep -qF '"-.slice:new:"' "$CASE/new/config.json" || fail "no cgroupsPath in config.json"
  bring --bundle "$CASE/new" --as "$ID-b" --ext-mount-map "/files:$CASE/moved"
  grep -q "as $ID-b: pid" "$CASE/said" || fail "restored as what? $(<"$CASE/said")"
  cgroups_are "/new-$ID-b.scope"
  FILES=$CASE/moved
  counts_on "$before"
  local line
  line=$(grep ' /files ' "/proc/$PID/mountinfo")
  [[ $line == *" $CASE/moved /files "* || $line == *"/moved /files "* ]] || fail "/files is $line"
  kill -KILL "$PID"
}

case_as_without_a_cgroups_path() {
  [[ -z $MISSING ]] || { echo "$MISSING"; return 0; }
  at_exit forget
  make_bundle
  crun_start
  take
  /usr/bin/python3 - "$BUNDLE/config.json" <<'PY'
import json, sys
config = json.load(open(sys.argv[1]))
del config['linux']['cgroupsPath']
json.dump(config, open(sys.argv[1], 'w'))
PY
  bring --bundle "$BUNDLE" --as "$ID-c"
  cgroups_are "/$ID-c"
  counts_on
  kill -KILL "$PID"
}

case_policies() {
  [[ -z $MISSING ]] || { echo "$MISSING"; return 0; }
  at_exit forget
  make_bundle
  crun_start
  take
  mkdir -p "$CASE/moved"
  cp "$FILES/n" "$CASE/moved/n"
  printf 'mounts:\n- {source: "%s", to: "%s"}\ncgroups:\n- {name: "%s-*", roots: ["/%s-policy"]}\n' "$FILES" "$CASE/moved" "$ID" "$ID" >"$CASE/stasis.yaml"
  bring --bundle "$BUNDLE" --as "$ID-d" --config "$CASE/stasis.yaml"
  cgroups_are "/$ID-policy"
  FILES=$CASE/moved
  counts_on
  kill -KILL "$PID"
  until_true "the tasks to go" _no_tasks
  echo 'mount: []' >"$CASE/bad.yaml"
  must_fail BAD-DESCRIPTION stasis restore -D "$CASE/images" --bundle "$BUNDLE" --config "$CASE/bad.yaml" --detach
  grep -q 'line 1' "$CASE/said" || fail "no line in: $(<"$CASE/said")"
  echo 'engine: /bin/false' >"$CASE/other.yaml"
  must_fail ENGINE-FAILED stasis restore -D "$CASE/images" --bundle "$BUNDLE" --config "$CASE/other.yaml" --detach
}

case_record_of_a_dead_container() {
  [[ -z $MISSING ]] || { echo "$MISSING"; return 0; }
  at_exit forget
  make_bundle
  crun_start
  local pid
  pid=$(sed -n 's/.*"pid": \([0-9]*\).*/\1/p' "/run/crun/$ID/status")
  # Another process under the recorded pid: the start time tells.
  mkdir -p "$CASE/root"
  cp -r "/run/crun/$ID" "$CASE/root/"
  sed -i 's/"process-start-time": [0-9]*/"process-start-time": 7/' "$CASE/root/$ID/status"
  must_fail NO-CONTAINER stasis check --runtime crun --runtime-root "$CASE/root" "$ID"
  grep -q 'belongs to another' "$CASE/said" || fail "$(<"$CASE/said")"
  truncate -s 40 "$CASE/root/$ID/status"
  must_fail BAD-DESCRIPTION stasis check --runtime crun --runtime-root "$CASE/root" "$ID"
  rm "$CASE/root/$ID/status"
  must_fail NO-CONTAINER stasis check --runtime crun --runtime-root "$CASE/root" "$ID"
  grep -qF "$CASE/root/$ID" "$CASE/said" || fail "the path is not named: $(<"$CASE/said")"
  kill -KILL "$pid"
  until_true "the tasks to go" _no_tasks
  must_fail NO-CONTAINER stasis check "$ID"
}

run_cases
