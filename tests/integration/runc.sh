#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Unmodified runc with our drop-in as the criu it finds on PATH.
. "$(dirname "$0")/lib.sh"

round_trip() {  # checkpoint, see that it is gone, restore, see that it goes on from where it was
  local before
  checkpoint "$@"
  is_absent
  until_true "the tasks to go" _no_tasks
  before=$(count)
  restore
  is_running
  counts_on "$before"
  [[ $(count) -lt $((before + 100000)) ]]
}

case_detached() {
  make_bundle
  start
  round_trip
  must runc delete -f "$ID"
  nothing_left
}

case_foreground() {
  make_bundle 'i=0; while :; do i=$((i+1)); echo line $i; echo $i >/files/n.new; mv /files/n.new /files/n; sleep 0.02; done'
  echo "$ID" >>"$CASE/containers"
  (cd "$BUNDLE" && exec runc run "$ID") </dev/null >"$CASE/out1" 2>&1 &
  local first=$! second before status=0
  until_true "the container to count" test -s "$FILES/n"
  checkpoint
  wait "$first" || true
  grep -q '^line 1$' "$CASE/out1" || fail "no output before the checkpoint"
  before=$(count)
  (cd "$BUNDLE" && exec runc restore --image-path "$CASE/images" --work-path "$CASE/work" "$ID") </dev/null >"$CASE/out2" 2>&1 &
  second=$!
  echo $second >>"$CASE/pids"
  until_true "output of the restored container" grep -q '^line ' "$CASE/out2"
  counts_on "$before"
  kill -0 $second || fail "runc restore does not stay in the foreground: $(tail -n 2 "$CASE/out2")"
  must runc kill "$ID" KILL
  wait $second || status=$?
  ((status == 137)) || fail "runc restore ended with status $status, not 137"
}

case_leave_running() {
  # No file is ever open: what the container does after the checkpoint must not change what the images need.
  make_bundle 'echo 1 >/files/n; i=0; while :; do i=$((i+1)); mkdir -p "/files/d$i"; sleep 0.02; done'
  count() { find "$FILES" -name 'd*' | wc -l; }
  start
  local pid before
  pid=$(pid_of)
  checkpoint --leave-running
  [[ $(pid_of) == "$pid" ]] || fail "the container has another pid"
  unharmed
  before=$(count)
  must runc delete -f "$ID"
  until_true "the tasks to go" _no_tasks
  restore  # the images are good, and older than the last count
  is_running
  [[ $(count) -ge 1 && $before -ge 1 ]]
  counts_on
}

case_ten_times() {
  make_bundle
  start
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    round_trip
    rm -rf "$CASE/images" "$CASE/work"
  done
}

case_exec_process() {
  make_bundle
  start
  runc exec -d "$ID" sh -c 'i=0; while :; do i=$((i+1)); echo $i >/files/m.new; mv /files/m.new /files/m; sleep 0.02; done' "$ID" \
    </dev/null >/dev/null 2>&1
  until_true "the second process" test -s "$FILES/m"
  round_trip
  local m
  m=$(<"$FILES/m")
  _m_more() { (($(<"$FILES/m") > m)); }
  until_true "the process of runc exec to go on" _m_more
}

# The tasks that stay: short-lived ones are not in every sample.
tree() {
  for _ in 1 2 3; do runc exec "$ID" ps -o pid,ppid,pgid,sid,comm; done | grep -vE ' ps$' | sort | uniq -c | awk '$1 == 3'
}
case_process_tree() {
  make_bundle "(while :; do echo tick; sleep 0.02; done | while read x; do echo \$x >>/files/ticks; done) &
    sleep 100000 & setsid sleep 100000 & $COUNTER"
  start
  until_true "the pipeline" test -s "$FILES/ticks"
  _two_sleep() { (($(tree | grep -c ' sleep$') == 2)); }
  until_true "the background jobs to be what they will be" _two_sleep
  local before after size
  before=$(tree)
  round_trip
  after=$(tree)
  [[ $before == "$after" ]] || fail "the tree is another: $(diff <(echo "$before") <(echo "$after") | tr -s ' \n' ' ')"
  runc exec "$ID" ps -o args | grep -q 'sleep 100000' || fail "the background job is gone"
  size=$(stat -c %s "$FILES/ticks")
  _grew() { (($(stat -c %s "$FILES/ticks") > size)); }
  until_true "the pipeline to go on" _grew
}

case_writable_rootfs() {
  make_bundle "echo kept >/root/written; exec 7>>/root/log; $COUNTER"
  start
  until_true "a file in the rootfs" test -s "$BUNDLE/rootfs/root/written"
  round_trip
  [[ $(<"$BUNDLE/rootfs/root/written") == kept ]]
  must runc exec "$ID" sh -c 'echo new >/root/after'
  [[ $(<"$BUNDLE/rootfs/root/after") == new ]]
}

case_readonly_rootfs() {
  make_bundle --readonly
  start
  round_trip
  must runc exec "$ID" sh -c '! touch /x'
}

case_bind_mounts() {
  mkdir -p "$CASE/dir"
  echo from-outside >"$CASE/file"
  echo in-dir >"$CASE/dir/f"
  make_bundle --bind "$CASE/dir:/mnt/dir" --bind "$CASE/file:/etc/one-file" "exec 8</etc/one-file; $COUNTER"
  start
  round_trip
  [[ $(runc exec "$ID" cat /mnt/dir/f /etc/one-file) == $'in-dir\nfrom-outside' ]] || fail "a bind mount lost its content"
  echo later >"$CASE/dir/g"
  [[ $(runc exec "$ID" cat /mnt/dir/g) == later ]] || fail "/mnt/dir is no longer the directory outside"
}

case_tmpfs_content() {
  make_bundle --tmpfs /scratch "mkdir -p /scratch/a/b; echo deep >/scratch/a/b/c; ln -s a/b/c /scratch/l; mkfifo /scratch/p; chmod 600 /scratch/a/b/c
    head -c 3000000 /dev/urandom >/scratch/big; md5sum </scratch/big >/files/sum; exec 9>>/scratch/open; echo x >&9; $COUNTER"
  start
  round_trip
  [[ $(runc exec "$ID" sh -c 'cat /scratch/l; stat -c %a /scratch/a/b/c; test -p /scratch/p && echo fifo; cat /scratch/open') == $'deep\n600\nfifo\nx' ]] ||
    fail "the tmpfs has other content: $(runc exec "$ID" ls -lR /scratch | tr '\n' ' ')"
  [[ $(runc exec "$ID" sh -c 'md5sum </scratch/big') == "$(<"$FILES/sum")" ]] || fail "a file of the tmpfs differs"
}

case_stdio_pipes() {
  make_bundle 'i=0; while :; do i=$((i+1)); echo out $i; echo err $i >&2; echo $i >/files/n.new; mv /files/n.new /files/n; sleep 0.02; done'
  echo "$ID" >>"$CASE/containers"
  (cd "$BUNDLE" && runc run -d "$ID") </dev/null 2>&1 | cat >"$CASE/out1" &
  echo $! >>"$CASE/pids"
  until_true "output on the pipe" grep -q '^out 3$' "$CASE/out1"
  checkpoint
  local before
  before=$(count)
  (cd "$BUNDLE" && runc restore -d --image-path "$CASE/images" --work-path "$CASE/work" "$ID") </dev/null 2>&1 | cat >"$CASE/out2" &
  echo $! >>"$CASE/pids"
  until_true "output on the new pipe, after $(explain)" grep -q '^out ' "$CASE/out2"
  until_true "errors on the new pipe" grep -q '^err ' "$CASE/out2"
  counts_on "$before"
}

case_stdio_dev_null() {
  make_bundle "cat; $COUNTER"
  start
  round_trip
  local pid
  pid=$(pid_of)
  for fd in 0 1 2; do
    [[ $(readlink "/proc/$pid/fd/$fd") == /dev/null ]] || fail "fd $fd is $(readlink "/proc/$pid/fd/$fd")"
  done
}

case_image_path_and_work_path() {
  make_bundle
  start
  must runc checkpoint --image-path "$CASE/here" --work-path "$CASE/there" "$ID"
  [[ -s $CASE/here/inventory.img && -s $CASE/here/descriptors.json && ! -e $CASE/here/dump.log ]] || fail "images: $(ls "$CASE/here" | tr '\n' ' ')"
  [[ -s $CASE/there/dump.log && -s $CASE/there/stats-dump && ! -e $CASE/there/inventory.img ]] || fail "work: $(ls "$CASE/there" | tr '\n' ' ')"
  mkdir "$CASE/elsewhere"
  (cd "$BUNDLE" && must runc restore -d --image-path "$CASE/here" --work-path "$CASE/elsewhere" "$ID")
  [[ -s $CASE/elsewhere/restore.log && -s $CASE/elsewhere/stats-restore ]] || fail "work: $(ls "$CASE/elsewhere" | tr '\n' ' ')"
  is_running
  counts_on
}

case_paused() {
  make_bundle
  start
  must runc pause "$ID"
  local before
  before=$(count)
  checkpoint
  until_true "the tasks to go" _no_tasks
  [[ $(count) == "$before" ]] || fail "a paused container has run"
  restore
  [[ $(status_of) != paused ]] || must runc resume "$ID"
  counts_on "$before"
}

case_paused_leave_running() {
  make_bundle
  start
  must runc pause "$ID"
  checkpoint --leave-running
  [[ $(status_of) == paused ]] || fail "after the checkpoint the container is $(status_of), not paused"
  must runc resume "$ID"
  counts_on
}

case_console_socket() {
  make_bundle --terminal 'i=0; stty -echo; while :; do i=$((i+1)); echo tty $i; echo $i >/files/n.new; mv /files/n.new /files/n; sleep 0.02; done'
  echo "$ID" >>"$CASE/containers"
  /usr/bin/python3 "$SUPPORT/recvtty.py" "$CASE/tty1" "$CASE/out1" & echo $! >>"$CASE/pids"
  until_true "the console socket" test -S "$CASE/tty1"
  (cd "$BUNDLE" && must runc run -d --console-socket "$CASE/tty1" "$ID")
  until_true "output on the terminal" grep -q 'tty 3' "$CASE/out1"
  checkpoint
  local before
  before=$(count)
  /usr/bin/python3 "$SUPPORT/recvtty.py" "$CASE/tty2" "$CASE/out2" & echo $! >>"$CASE/pids"
  until_true "the console socket" test -S "$CASE/tty2"
  restore --console-socket "$CASE/tty2"
  until_true "output on the new terminal" grep -q 'tty ' "$CASE/out2"
  counts_on "$before"
  [[ $(runc exec "$ID" readlink /proc/1/fd/0) == /dev/pts/0 ]] || fail "stdin is $(runc exec "$ID" readlink /proc/1/fd/0)"
}

case_failed_checkpoint_leaves_it_running() {
  # Who listens is stopped, so nobody accepts.
  make_bundle "nc -l -p 7777 & n=\$!; sleep 0.5; kill -STOP \$n; (sleep 100000 | nc 127.0.0.1 7777) & (sleep 100000 | nc 127.0.0.1 7777) & $COUNTER"
  start
  _two() { [[ $(cat "/proc/$(pid_of)/net/tcp" | grep -c ":1E61 01 ") == 2 ]]; }
  until_true "two connections" _two
  mkdir -p "$CASE/work"
  must_fail 'UNSUPPORTED' runc checkpoint --image-path "$CASE/images" --work-path "$CASE/work" "$ID"
  grep -q 'socket' "$CASE/work/dump.log" || fail "the log does not name the socket"
  is_running
  no_checkpoint_in "$CASE/images"
  runc exec "$ID" killall -9 nc || true
  _no_ends() { ! runc exec "$ID" pidof nc; }
  until_true "the connection to go" _no_ends
  rm -rf "$CASE/images"
  unharmed
  round_trip
}

case_hostname_and_limits() {
  make_bundle --hostname live-runc --pids 55
  start
  round_trip
  [[ $(runc exec "$ID" hostname) == live-runc ]] || fail "hostname is $(runc exec "$ID" hostname)"
  local file
  for file in "/sys/fs/cgroup/pids/$ID/pids.max" "/sys/fs/cgroup/$ID/pids.max"; do
    [[ ! -e $file || $(<"$file") == 55 ]] || fail "$file is $(<"$file")"
  done
}

case_predump_is_refused() {
  make_bundle
  start
  ! runc checkpoint --pre-dump --image-path "$CASE/images" --work-path "$CASE/work" "$ID" >"$CASE/said" 2>&1 || fail "a pre-dump succeeded"
  unharmed
}

case_runc_list_after_restore() {
  make_bundle
  start
  checkpoint
  restore
  runc list -f table | grep -E "^$ID +$(pid_of) +running" >/dev/null || fail "runc list: $(runc list | grep "$ID")"
  [[ $(readlink "/proc/$(pid_of)/root") == / && -e /proc/$(pid_of)/ns/pid ]]
  must runc exec "$ID" true
  must runc kill "$ID" KILL
  _stopped() { [[ $(status_of) == stopped ]]; }
  until_true "runc to see it stopped" _stopped
}

run_cases
