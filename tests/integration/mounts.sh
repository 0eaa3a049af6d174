#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Mounts of a runc container, as mountinfo shows them before and after.
. "$(dirname "$0")/lib.sh"

# mountpoint, root, options, type: ids and peer groups are new each time. Two things runc itself does otherwise at
# restore, with any engine: masked files are covered by the host's /dev/null instead of the container's, and cgroup v1
# mounts show the cgroup that runc was started in.
table() {
  awk '{ for (i = 7; $i != "-"; i++); type = $(i + 1)
         if ($4 == "/null") print $5, $4; else if (type == "cgroup") print $5, type, $6; else print $5, $4, $6, type }' \
    "/proc/$(pid_of)/mountinfo" | sed "s|$ID|ID|g"
}
same_after_round_trip() {
  start
  local before after
  before=$(table)
  checkpoint
  restore
  after=$(table)
  [[ $before == "$after" ]] || fail "$(diff <(echo "$before") <(echo "$after") | tr '\n' ' ')"
  counts_on
}

case_table_is_the_same() { make_bundle; same_after_round_trip; }
case_table_is_the_same_readonly() { make_bundle --readonly --tmpfs /scratch; same_after_round_trip; }

case_overmount_and_nested() {
  mkdir -p "$CASE/outer" "$CASE/inner"
  echo inner >"$CASE/inner/f"
  make_bundle --bind "$CASE/outer:/a" --tmpfs /a/t --bind "$CASE/inner:/a/t/b" --tmpfs /over --tmpfs /over
  same_after_round_trip
  [[ $(runc exec "$ID" cat /a/t/b/f) == inner ]]
}

case_masked_and_readonly_paths() {
  make_bundle
  same_after_round_trip
  must runc exec "$ID" sh -c '! echo x >/proc/sysrq-trigger'
  [[ $(runc exec "$ID" sh -c 'wc -c </proc/keys') == 0 ]] || fail "/proc/keys is no longer masked"
}

case_nothing_leaks_to_the_host() {
  make_bundle
  start
  checkpoint
  local before
  before=$(awk '{print $5}' /proc/self/mountinfo | sort)
  restore
  [[ $before == "$(awk '{print $5}' /proc/self/mountinfo | sort)" ]] || fail "the host has other mounts than before"
  [[ -z $(mounts_left) ]] || fail "left: $(mounts_left)"
}

case_devpts_mqueue_proc_are_its_own() {
  make_bundle
  same_after_round_trip
  [[ $(runc exec "$ID" sh -c 'ls /proc/1/cmdline && test -e /dev/pts/ptmx && test -d /dev/mqueue && echo all') == *all ]]
  [[ $(runc exec "$ID" cat /proc/1/comm) == sh ]] || fail "/proc is not of its pid namespace"
}

run_cases
