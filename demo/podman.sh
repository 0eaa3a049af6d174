#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Unmodified podman over runc, with stasis as the criu on its PATH: a container is checkpointed, restored, exported and
# imported under a new name, and its log misses nothing. Called by `./dev demo podman`.
set -uo pipefail

work=$(mktemp -d /tmp/stasis-demo.XXXXXX) || exit 1
. "$(dirname "$0")/lib.sh"
export PATH=$build/libexec/stasis:$PATH
# podman's own limits want CAP_SYS_RESOURCE, which not every machine has.
printf '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]\n' >"$work/containers.conf"
export CONTAINERS_CONF=$work/containers.conf
storage=(--root "$work/storage" --runroot "$work/run" --tmpdir "$work/tmp" --runtime runc --cgroup-manager cgroupfs --events-backend file)
pod() { podman "${storage[@]}" "$@"; }
clean_up() {
  pod rm -f -t 0 -a >/dev/null 2>&1
  awk '{print $5}' /proc/self/mountinfo | grep -F "$work" | sort -r | while read -r at; do umount -l "$at"; done
}

make_image() {
  mkdir -p "$work/image/bin"
  cp "$(command -v busybox)" "$work/image/bin/busybox" || return
  for applet in sh sleep echo cat; do ln -s busybox "$work/image/bin/$applet" || return; done
  tar -C "$work/image" -c . | pod import -q - localhost/demo:1
}
last() { pod logs "$1" 2>/dev/null | tail -n 1 | tr -dc 0-9; }
moves() { # the log of $1 grows within ten seconds
  local from
  from=$(last "$1")
  for _ in $(seq 100); do [ "$(last "$1")" -gt "${from:-0}" ] 2>/dev/null && return 0; sleep 0.1; done
  return 1
}
whole() { pod logs "$1" | tr -dc '0-9\n' | awk 'NF && $1 != NR { exit 1 }'; }
status() { pod inspect --format '{{.State.Status}}' "$1"; }

needs podman conmon runc busybox
say "$("$stasis" version), $(podman --version), Linux $(uname -r)"
title "A container"
step "make an image of busybox-static" make_image
step "podman run -d" pod run -d --name web --network none localhost/demo:1 sh -c 'i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done'
check "its log grows (at $(last web))" moves web

title "podman container checkpoint, podman container restore, three times"
for round in 1 2 3; do
  step "podman container checkpoint web" pod container checkpoint web
  check "podman calls it $(status web)" test "$(status web)" = exited
  step "podman container restore web" pod container restore web
  check "podman calls it $(status web)" test "$(status web)" = running
  check "the log goes on (at $(last web))" moves web
done
check "and missed nothing" whole web
check "podman exec works" test "$(pod exec web echo inside)" = inside

title "Export, and import under a new name"
before=$(last web)
step "podman container checkpoint --export FILE web" pod container checkpoint --export "$work/web.tar.gz" web
step "podman rm web" pod rm web
step "podman container restore --import FILE --name copy" pod container restore --import "$work/web.tar.gz" --name copy
check "it goes on from $before (at $(last copy))" moves copy
check "not from the beginning" test "$(last copy)" -gt "$before"
step "podman stop and rm" pod rm -f -t 0 copy
the_end
