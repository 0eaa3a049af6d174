#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# `stasis checkpoint NAME`, whoever runs the container; and that one container has one checkpoint at a time.
. "$(dirname "$0")/lib.sh"

has() { [[ -x $(command -v "$1") ]] || { echo "skip: $1 is not installed"; return 1; }; }

# An image of podman's with nothing but busybox, made here: there is no registry.
image() {
  mkdir -p "$CASE/image/bin" "$CASE/image/files"
  cp "$(command -v busybox)" "$CASE/image/bin/busybox"
  ln -sf busybox "$CASE/image/bin/sh"
  tar -C "$CASE/image" -c . | podman import - "localhost/$ID:1" >/dev/null 2>"$CASE/podman.err" || return 1
}
podman_gone() {
  podman rm -f "$ID" >/dev/null 2>&1 || true
  podman rmi -f "localhost/$ID:1" >/dev/null 2>&1 || true
}
podman_runs() {
  image || { echo "skip: podman cannot make an image here: $(tail -n 1 "$CASE/podman.err")"; return 1; }
  # More than these limits would need CAP_SYS_RESOURCE.
  podman --runtime "$1" run -d --name "$ID" --net none --ulimit nofile=1024:1024 --ulimit nproc=1000:1000 \
    -v "$FILES:/files" "localhost/$ID:1" /bin/busybox sh -c "$BUSY_COUNTER" "$ID" >"$CASE/long" 2>"$CASE/podman.err" ||
    { echo "skip: podman cannot run a container here: $(tail -n 1 "$CASE/podman.err")"; return 1; }
  until_true "the container to count" test -s "$FILES/n"
}
BUSY_COUNTER='i=0; while :; do i=$((i+1)); echo $i >/files/n.new; busybox mv /files/n.new /files/n; busybox sleep 0.02; done'

case_podman() {
  has podman && has runc || return 0
  mkdir -p "$FILES"
  at_exit podman_gone
  podman_runs runc || return 0
  must stasis plan "$ID"
  grep -q 'runtime: podman' "$CASE/said" || fail "the plan: $(<"$CASE/said")"
  must stasis checkpoint "$ID" -D "$CASE/running" --leave-running
  counts_on
  # By the id that `podman ps` shows; the OCI runtime's own record of it is the same container.
  must stasis checkpoint "$(cut -c1-12 "$CASE/long")" -D "$CASE/images"
  test -s "$CASE/images/inventory.img"
  until_true "the tasks to go" _no_tasks
  podman wait "$ID" >/dev/null 2>&1 || true
  must_fail NO-CONTAINER stasis checkpoint --runtime podman "$ID" -D "$CASE/none"
  [[ ! -e $CASE/none ]] || fail "a directory was made for nothing"
}

lxc_gone() { lxc-stop -P "$CASE/lxc" -n "$ID" -k >/dev/null 2>&1 || true; }
lxc_runs() {
  mkdir -p "$CASE/lxc/$ID"
  make_bundle
  mkdir -p "$BUNDLE/rootfs/files"
  printf '#!/bin/sh\nset -- "%s"\n%s\n' "$ID" "$COUNTER" >"$BUNDLE/rootfs/bin/count"
  chmod +x "$BUNDLE/rootfs/bin/count"
  cat >"$CASE/lxc/$ID/config" <<CONFIG
lxc.rootfs.path = dir:$BUNDLE/rootfs
lxc.uts.name = box
lxc.apparmor.profile = unconfined
lxc.net.0.type = empty
lxc.console.path = none
lxc.tty.max = 0
lxc.mount.auto = proc:mixed sys:mixed
lxc.mount.entry = $FILES files none bind 0 0
lxc.init.cmd = /bin/sh /bin/count $ID
CONFIG
  lxc-start -P "$CASE/lxc" -n "$ID" -l DEBUG -o "$CASE/lxc.log" </dev/null >/dev/null 2>&1 ||
    { echo "skip: LXC cannot start a container here: $(grep ERROR "$CASE/lxc.log" | tail -n 1)"; return 1; }
  until_true "the container to count" test -s "$FILES/n"
}

case_lxc() {
  has lxc-start && has lxc-info || return 0
  at_exit lxc_gone
  lxc_runs || return 0
  local lxc=(--runtime lxc --runtime-root "$CASE/lxc")
  must stasis plan "${lxc[@]}" "$ID"
  grep -q 'from: "config:8"' "$CASE/said" && grep -q "/lxc.payload.$ID" "$CASE/said" || fail "the plan: $(<"$CASE/said")"
  must stasis checkpoint "${lxc[@]}" "$ID" -D "$CASE/images" --leave-running
  counts_on
  must stasis checkpoint "${lxc[@]}" "$ID" -D "$CASE/images" --force
  until_true "the tasks to go" _no_tasks
  must_fail NO-CONTAINER stasis checkpoint "${lxc[@]}" "$ID" -D "$CASE/none"
  local before pid
  before=$(count)
  must stasis restore --bundle "$CASE/lxc/$ID" --as "$ID-b" -D "$CASE/images" --detach --pidfile "$CASE/pid"
  pid=$(<"$CASE/pid")
  echo "$pid" >>"$CASE/pids"
  counts_on "$before"
  grep -v ":/lxc.payload.$ID-b\$" "/proc/$pid/cgroup" && fail "not all in lxc.payload.$ID-b"
  kill -KILL "$pid"
  until_true "the tasks to go" _no_tasks
}

# The same name with two runtimes, and a name that nobody has.
case_which_one() {
  make_bundle
  start
  mkdir -p "$CASE/root/$ID"
  cp "/run/runc/$ID/state.json" "$CASE/root/$ID/"
  printf '{"pid": %d, "process-start-time": %d, "bundle": "%s", "rootfs": "rootfs"}' $$ \
    "$(sed 's/.*) //' /proc/$$/stat | cut -d' ' -f20)" "$BUNDLE" >"$CASE/root/$ID/status"
  must_fail USAGE stasis plan --runtime-root "$CASE/root" "$ID"
  grep -q "runc $ID, crun $ID" "$CASE/said" || fail "the two are not named: $(<"$CASE/said")"
  must stasis plan --runtime runc --runtime-root "$CASE/root" "$ID"
  must_fail NO-CONTAINER stasis checkpoint "$ID-nobody" -D "$CASE/images"
  grep -q "$ID" "$CASE/said" || fail "does not say which there are: $(<"$CASE/said")"
  [[ ! -e $CASE/images ]] || fail "a directory was made for nothing"
}

# A second checkpoint while the first one is at its last stage, through every door.
case_one_checkpoint_at_a_time() {
  make_bundle
  start
  mkdir -p "$CASE/work" "$CASE/c" "$CASE/second-images"
  # The engine cleans the environment of nobody, but a script knows best what it was written for.
  cat >"$CASE/script" <<SCRIPT
#!/bin/bash
[[ \$CRTOOLS_SCRIPT_ACTION == post-dump ]] || exit 0
export PATH=$PATH
{
  stasis checkpoint "$ID" -D "$CASE/s" --leave-running; echo "stasis \$?"
  criu dump -t $(pid_of) -D "$CASE/c" --leave-running; echo "criu \$?"
  runc checkpoint --leave-running --image-path "$CASE/second-images" --work-path "$CASE/c" "$ID"; echo "runc \$?"
} >"$CASE/second" 2>&1 </dev/null
exit 0
SCRIPT
  chmod +x "$CASE/script"
  must stasis checkpoint "$ID" -D "$CASE/images" --leave-running --action-script "$CASE/script"
  local door
  for door in stasis criu runc; do
    grep -q "^$door 1\$" "$CASE/second" || fail "the second, by $door: $(tr '\n' ' ' <"$CASE/second")"
  done
  (($(cat "$CASE/second" "$CASE"/c/*.log | grep -c STASIS-E-BUSY) >= 3)) || fail "not refused as busy: $(tr '\n' ' ' <"$CASE/second")"
  [[ ! -e $CASE/s && ! -e $CASE/c/inventory.img && ! -e $CASE/second-images/inventory.img ]] || fail "the second left images"
  unharmed
}

# The lock goes with the engine that is killed.
case_killed_engine_leaves_no_lock() {
  make_bundle
  start
  mkfifo "$CASE/hold"
  printf '#!/bin/bash\n[[ $CRTOOLS_SCRIPT_ACTION == pre-dump ]] || exit 0\necho >"%s/at"\nread -r _ <"%s/hold"\n' "$CASE" "$CASE" >"$CASE/script"
  chmod +x "$CASE/script"
  stasis checkpoint "$ID" -D "$CASE/images" --leave-running --action-script "$CASE/script" </dev/null >/dev/null 2>&1 &
  local engine=$!
  echo $engine >>"$CASE/pids"
  until_true "the engine" test -e "$CASE/at"
  must_fail BUSY stasis checkpoint "$ID" -D "$CASE/other" --leave-running
  kill -KILL $engine
  wait $engine || true
  until_true "the lock to go" stasis checkpoint "$ID" -D "$CASE/other" --leave-running >"$CASE/said" 2>&1 </dev/null
  unharmed
}

run_cases
