#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The client libraries of Debian, unmodified: libcriu, pycriu and go-criu, over swrk and over the service's socket.
. "$(dirname "$0")/lib.sh"

CRIU=$STASIS_BUILD/libexec/stasis/criu
CLIENTS=$SUPPORT/clients

service() {
  "$CRIU" service --address "$CASE/socket" -o "$CASE/service.log" -v4 </dev/null >/dev/null 2>&1 &
  echo "$!" >>"$CASE/pids"
  until_true "the service" grep -qs listens "$CASE/service.log"
}
says() { grep -qE "^$1\$" "$CASE/said" || fail "not said: $1; but: $(tr '\n' ';' <"$CASE/said")"; }
refuses() {
  local status=0
  "$@" >"$CASE/said" 2>&1 </dev/null || status=$?
  ((status > 0 && status < 124)) || fail "status $status of $*: $(tail -n 3 "$CASE/said")"
}
_dead() { [[ ! -d /proc/$PID ]]; }

# CLIENT...: dump and restore with notifications, if it has them.
dump_and_restore() {
  local pid=$PID before
  refuses "$@" pre-dump "$CASE/images" "$pid"
  [[ -z $(ls "$CASE/images"/*.img 2>/dev/null) ]] || fail "a refused pre-dump left $(ls "$CASE/images")"
  counts_on
  must "$@" dump "$CASE/images" "$pid"
  [[ ${NOTIFIES:-} != 1 ]] || says 'notify post-dump 0'
  wait "$pid" 2>/dev/null || true
  _dead || fail "the process lives on"
  before=$(count)
  must "$@" restore "$CASE/images"
  [[ ${NOTIFIES:-} != 1 ]] || says "notify post-restore $pid"
  [[ -d /proc/$pid ]] || fail "there is no process $pid"
  counts_on "$before"
}

libcriu() {
  [[ -e /usr/lib/x86_64-linux-gnu/libcriu.so.2 ]] || { echo "skip: no libcriu.so.2 (package criu)"; return 1; }
  must cc -Wall -Wextra -Werror -o "$CASE/client" "$CLIENTS/libcriu_client.c" -l:libcriu.so.2
}
libcriu_asks() {
  must "$CASE/client" "$@" version
  says 'version [3-9][0-9]{4}'
  must "$CASE/client" "$@" at-least 31500
  says 'at-least 1'
  must "$CASE/client" "$@" feature
  says 'mem_track [01]'
  must "$CASE/client" "$@" check
  NOTIFIES=1 dump_and_restore "$CASE/client" "$@"
  says "restore $PID"
}
case_libcriu_swrk() {
  libcriu || return 0
  host_counter
  libcriu_asks swrk "$CRIU"
}
case_libcriu_service() {
  libcriu || return 0
  host_counter
  service
  libcriu_asks socket "$CASE/socket"
}

pycriu() {
  /usr/bin/python3 -c 'import sys; sys.path.append("/usr/lib/python3/dist-packages"); import pycriu' 2>/dev/null ||
    { echo "skip: no pycriu (package criu)"; return 1; }
}
case_pycriu_swrk() {
  pycriu || return 0
  host_counter
  must /usr/bin/python3 "$CLIENTS/pycriu_client.py" swrk "$CRIU" check "$CASE/images"
  dump_and_restore /usr/bin/python3 "$CLIENTS/pycriu_client.py" swrk "$CRIU"
}
case_pycriu_service() {
  pycriu || return 0
  host_counter
  service
  must /usr/bin/python3 "$CLIENTS/pycriu_client.py" socket "$CASE/socket" check "$CASE/images"
  dump_and_restore /usr/bin/python3 "$CLIENTS/pycriu_client.py" socket "$CASE/socket"
}

case_go_criu() {
  local gocode=/usr/share/gocode
  [[ -x /usr/bin/go && -d $gocode/src/github.com/checkpoint-restore/go-criu && -d $gocode/src/google.golang.org/protobuf ]] ||
    { echo "skip: no golang-go, golang-github-checkpoint-restore-go-criu-dev, golang-google-protobuf-dev"; return 0; }
  cp "$CLIENTS/go_client/main.go" "$CASE/main.go"
  (cd "$CASE" && GO111MODULE=off GOPATH=$gocode GOFLAGS='' GOCACHE=$CASE/cache must /usr/bin/go build -o client main.go) || fail "go build"
  host_counter
  must "$CASE/client" swrk "$CRIU" version
  says 'version [3-9][0-9]{4}'
  must "$CASE/client" swrk "$CRIU" feature
  NOTIFIES=1 dump_and_restore "$CASE/client" swrk "$CRIU"
}

run_cases
