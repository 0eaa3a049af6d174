#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Terminals as real programs use them: script(1) with a shell in it, and a job of an interactive shell.
. "$(dirname "$0")/lib.sh"

_longer_than() { [[ -e $1 ]] && (($(stat -c %s "$1") > $2)); }
# Orphans of what was dumped are reaped by somebody else.
_pids_are_free() {
  local core
  for core in "$1"/core-*.img; do
    core=${core##*-}
    [[ ! -e /proc/${core%.img} ]] || return 1
  done
}

case_script() {
  command -v script >/dev/null || { echo "skip: there is no script(1)"; return 0; }
  local images=$CASE/images log=$CASE/typescript said pid size
  mkdir "$images"
  # shellcheck disable=SC2016
  setsid script -qfc 'trap "echo resized" WINCH; tty >'"$CASE"'/tty; i=0; while :; do i=$((i+1)); echo line $i; sleep 0.02; done' "$log" \
    </dev/null >/dev/null 2>&1 &
  pid=$!
  at_exit "kill -KILL -$pid 2>/dev/null; kill -KILL \$(cat $CASE/pid 2>/dev/null) 2>/dev/null; true"
  until_true "output" _longer_than "$log" 300
  must criu dump -t "$pid" -D "$images" -o dump.log
  wait "$pid" 2>/dev/null || true
  until_true "the pids to be free" _pids_are_free "$images"
  size=$(stat -c %s "$log")
  said=$(tail -n 1 "$log" | tr -d '\r')
  must criu restore -d -D "$images" -o restore.log --pidfile "$CASE/pid"
  until_true "more output" _longer_than "$log" "$((size + 300))"
  # No line is lost, none comes twice.
  [[ $(tr -d '\r' <"$log" | sed -n 's/^line //p' | awk '$1 != NR { print NR; exit }') == "" ]] || fail "after $said lines are lost or doubled"
  kill -KILL "$(cat "$CASE/pid")"
}

case_shell_job() {
  timeout 60 /usr/bin/python3 "$SUPPORT/shell_job.py" "$CASE" || fail "$(tail -n 3 "$CASE"/*.log 2>/dev/null | tr '\n' ' ')"
}

run_cases
