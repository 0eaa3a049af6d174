#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Containers with a user namespace of their own, made by root: unmodified runc, podman and LXC, and stasis itself.
. "$(dirname "$0")/lib.sh"

# The container of the case gets ids of its own; what it may write belongs to its root.
user_bundle() {
  make_bundle "$@"
  /usr/bin/python3 - "$BUNDLE/config.json" <<'END'
import json, sys
with open(sys.argv[1]) as file:
    config = json.load(file)
linux = config['linux']
if {'type': 'user'} not in linux['namespaces']:
    linux['namespaces'].append({'type': 'user'})
for kind, first in (('uid', 100000), ('gid', 200000)):
    linux[f'{kind}Mappings'] = [{'containerID': 0, 'hostID': first, 'size': 65536}]
with open(sys.argv[1], 'w') as file:
    json.dump(config, file, indent=1)
END
  chown -R 100000:200000 "$BUNDLE/rootfs" "$FILES"
}
# As the container's root sees itself, and as the host sees it.
ids_are_kept() {
  local pid=$1
  [[ $(tr -s ' ' <"/proc/$pid/uid_map") == " 0 100000 65536" ]] || fail "uid_map: $(<"/proc/$pid/uid_map")"
  [[ $(tr -s ' ' <"/proc/$pid/gid_map") == " 0 200000 65536" ]] || fail "gid_map: $(<"/proc/$pid/gid_map")"
  [[ $(awk '/^[UG]id:/ {printf "%s ", $2}' "/proc/$pid/status") == "100000 200000 " ]] || fail "it runs as $(grep '^.id:' "/proc/$pid/status")"
  [[ $(stat -c %u:%g "$FILES/n") == 100000:200000 ]] || fail "its files belong to $(stat -c %u:%g "$FILES/n")"
}

case_runc() {
  user_bundle
  start
  ids_are_kept "$(pid_of)"
  local before
  for _ in 1 2; do
    rm -rf "$CASE/images" "$CASE/work"
    checkpoint
    is_absent
    until_true "the tasks to go" _no_tasks
    before=$(count)
    restore
    is_running
    counts_on "$before"
    ids_are_kept "$(pid_of)"
    [[ $(runc exec "$ID" id -u) == 0 ]] || fail "exec does not work: $(runc exec "$ID" id 2>&1)"
  done
  must runc delete -f "$ID"
  nothing_left
}

case_exec_process() {
  user_bundle
  start
  runc exec -d "$ID" sh -c 'i=0; while :; do i=$((i+1)); echo $i >/files/m.new; mv /files/m.new /files/m; sleep 0.02; done' "$ID" \
    </dev/null >/dev/null 2>&1
  until_true "the second process" test -s "$FILES/m"
  checkpoint
  until_true "the tasks to go" _no_tasks
  local second
  second=$(<"$FILES/m")
  restore
  counts_on
  _second_counts() { (($(cat "$FILES/m" 2>/dev/null || echo 0) > second)); }
  until_true "the second process to count on from $second" _second_counts
  [[ $(stat -c %u "$FILES/m") == 100000 ]] || fail "its files belong to $(stat -c %u "$FILES/m")"
  must runc delete -f "$ID"
  nothing_left
}

case_stasis() {
  user_bundle --tmpfs /t
  start
  local before file
  mkdir -p "$CASE/work" "$CASE/images"
  must runc exec "$ID" sh -c 'echo kept >/t/f'
  file=/proc/$(pid_of)/root/t/f
  chown 100005:200006 "$file"
  chmod 4711 "$file"
  must stasis check --container "$ID"
  take
  before=$(count)
  bring --bundle "$BUNDLE"
  counts_on "$before"
  ids_are_kept "$PID"
  [[ $(stat -c '%u:%g %a' "/proc/$PID/root/t/f") == "100005:200006 4711" ]] || fail "the file in the tmpfs: $(stat -c '%u:%g %a' "/proc/$PID/root/t/f")"
  [[ $(<"/proc/$PID/root/t/f") == kept ]]
}

# Files of ids that the container does not have would become somebody else's.
case_files_of_the_host() {
  user_bundle
  mkdir "$BUNDLE/rootfs/t"
  start
  local pid
  pid=$(pid_of)
  must nsenter -t "$pid" -m /bin/mount -t tmpfs host /t
  must_fail UNSUPPORTED-MOUNT runc checkpoint --image-path "$CASE/images" --work-path "$CASE/work" "$ID"
  grep -q 'belongs to user 0 and group 0 of the host' "$CASE/work/dump.log" || fail "$(explain)"
  no_checkpoint_in "$CASE/images"
  must nsenter -t "$pid" -m /bin/umount /t
  unharmed
}

# Without a manifest nothing but the fields themselves says that they are wrong.
case_images_that_no_kernel_made() {
  user_bundle
  mkdir -p "$CASE/work" "$CASE/images"
  start
  take
  rm "$CASE/images/stasis-manifest.img"
  cp -a "$CASE/images" "$CASE/good"
  local file change
  while read -r file change; do
    rm -rf "$CASE/images" && cp -a "$CASE/good" "$CASE/images"
    crit decode -i "$CASE/good/$file" | /usr/bin/python3 -c "import json, sys
image = json.load(sys.stdin)
entry = image['entries'][0]
$change
json.dump(image, sys.stdout)" | crit encode -o "$CASE/images/$file" || fail "crit does not take $change"
    ABOUT=$change must_fail IMAGE-CORRUPT stasis restore --images-dir "$CASE/images" --work-dir "$CASE/work" --bundle "$BUNDLE" --detach
    nothing_left
  done <<'END'
userns-16.img del entry['uid_map']
userns-16.img entry['uid_map'] *= 2
userns-16.img entry['gid_map'][0]['count'] = 0
userns-16.img entry['gid_map'][0]['count'] = 4294967295
userns-16.img entry['uid_map'][0]['first'] = 1
userns-16.img entry['uid_map'] = [{'first': 2 * i, 'lower_first': 2 * i, 'count': 1} for i in range(400)]
timens-0.img entry['monotonic']['tv_sec'] = 2 ** 63
timens-0.img entry['boottime']['tv_nsec'] = 10 ** 9
END
  rm -rf "$CASE/images" && cp -a "$CASE/good" "$CASE/images"
  bring --bundle "$BUNDLE"
  counts_on
  ids_are_kept "$PID"
}

case_into_is_refused() {
  user_bundle
  mkdir -p "$CASE/work" "$CASE/images"
  start
  take
  must_fail UNSUPPORTED-NAMESPACE stasis restore --images-dir "$CASE/images" --work-dir "$CASE/work" --into runc --as "$ID" \
    --bundle "$BUNDLE" --detach
  nothing_left
}

# The network namespace belongs to the host's root, as one made by a network plugin does.
case_network_of_the_host() {
  local net=$CASE/net pid
  user_bundle
  touch "$net"
  unshare "--net=$net" true || { echo "skip: no network namespaces"; exit 0; }
  /usr/bin/python3 - "$BUNDLE/config.json" "$net" <<'END'
import json, sys
with open(sys.argv[1]) as file:
    config = json.load(file)
for namespace in config['linux']['namespaces']:
    if namespace['type'] == 'network':
        namespace['path'] = sys.argv[2]
# Only the owner of the network may mount a sysfs.
config['mounts'] = [m for m in config['mounts'] if not m['destination'].startswith('/sys')]
with open(sys.argv[1], 'w') as file:
    json.dump(config, file, indent=1)
END
  start
  for _ in 1 2; do
    rm -rf "$CASE/images" "$CASE/work"
    checkpoint
    until_true "the tasks to go" _no_tasks
    restore
    counts_on
    pid=$(pid_of)
    ids_are_kept "$pid"
    [[ /proc/$pid/ns/net -ef $net ]] || fail "it is in another network namespace"
  done
  must runc delete -f "$ID"
  umount "$net"
}

# A user's own container, in the host's network, so with the host's /sys and all that is mounted in it; root takes it.
case_rootless_runc() {
  local pid before kind user=4242
  make_bundle
  rm "$BUNDLE/config.json"
  (cd "$BUNDLE" && runc spec --rootless)
  /usr/bin/python3 "$SUPPORT/make_bundle.py" "$BUNDLE" --bind "$FILES:/files" -- sh -c "$COUNTER" "$ID"
  sed -i "s/\"hostID\": [0-9]*/\"hostID\": $user/" "$BUNDLE/config.json"
  mkdir "$CASE/run"
  chown -R "$user:$user" "$BUNDLE" "$FILES" "$CASE/run"
  (cd "$BUNDLE" && XDG_RUNTIME_DIR=$CASE/run exec setpriv --reuid "$user" --regid "$user" --clear-groups \
    runc --root "$CASE/run" --log "$CASE/run/err" run -d "$ID") </dev/null >/dev/null 2>&1 || fail "runc run: $(tail -n 1 "$CASE/run/err")"
  until_true "the container to count" test -s "$FILES/n"
  pid=$(runc --root "$CASE/run" state "$ID" | sed -n 's/.*"pid": \([0-9]*\).*/\1/p')
  cut -d' ' -f5,6 "/proc/$pid/mountinfo" | sort >"$CASE/mounts"
  for kind in 1 2; do
    rm -rf "$CASE/images"
    mkdir "$CASE/images"
    must criu dump -t "$pid" -D "$CASE/images" -v4 -o dump.log --external 'mnt[]' --shell-job
    until_true "the tasks to go" _no_tasks
    before=$(count)
    [[ $kind == 2 ]] || mount --bind "$BUNDLE/rootfs" "$BUNDLE/rootfs"
    # What the host has there by now must not come along.
    must_fail MOUNT-TARGET unshare -m sh -c 'mount -t tmpfs none /sys/kernel && exec "$@"' sh criu restore -d -D "$CASE/images" \
      -v4 -o refused.log --external 'mnt[]' --shell-job --root "$BUNDLE/rootfs"
    _no_tasks || fail "tasks are left: $(tasks_left)"
    must criu restore -d -D "$CASE/images" -v4 -o restore.log --external 'mnt[]' --shell-job --root "$BUNDLE/rootfs" --pidfile "$CASE/pid"
    pid=$(<"$CASE/pid")
    rm "$CASE/pid"
    echo "$pid" >>"$CASE/pids"
    counts_on "$before"
    [[ $(tr -s ' ' <"/proc/$pid/uid_map") == " 0 $user 1" && $(<"/proc/$pid/setgroups") == deny ]] || fail "it has other ids"
    cut -d' ' -f5,6 "/proc/$pid/mountinfo" | sort | diff "$CASE/mounts" - || fail "other mounts"
  done
  # It is its user's still.
  setpriv --reuid "$user" --regid "$user" --clear-groups nsenter -t "$pid" -U -m -i --preserve-credentials /bin/true || fail "its user may not enter it"
}

podman() {
  command podman --root "$CASE/storage" --runroot "$CASE/run" --tmpdir "$CASE/tmp" --runtime runc --cgroup-manager cgroupfs \
    --events-backend file "$@"
}
end_podman() { podman rm -f -t 0 -a; } >/dev/null 2>&1

case_podman() {
  command -v podman >/dev/null && command -v conmon >/dev/null || { echo "skip: podman is not installed"; exit 0; }
  at_exit end_podman
  printf '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]\n' >"$CASE/containers.conf"
  export CONTAINERS_CONF=$CASE/containers.conf
  mkdir -p "$CASE/image/bin" "$CASE/image/tmp"
  cp "$(command -v busybox)" "$CASE/image/bin/busybox"
  local applet before
  for applet in sh sleep echo cat true readlink id; do ln -s busybox "$CASE/image/bin/$applet"; done
  tar -C "$CASE/image" -c . | podman import -q - localhost/counter:1 >/dev/null 2>"$CASE/said" || fail "import: $(<"$CASE/said")"
  must podman run -d --name one --network none --uidmap 0:100000:65536 --gidmap 0:200000:65536 localhost/counter:1 \
    sh -c 'i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done' "$ID"
  last() { podman logs one 2>/dev/null | tail -n 1 | tr -dc 0-9; }
  _prints_after() { local n; n=$(last); [[ -n $n ]] && ((n > $1)); }
  until_true "it to print" _prints_after 0
  for _ in 1 2; do
    before=$(last)
    must podman container checkpoint one
    _no_tasks || fail "tasks are left: $(tasks_left)"
    must podman container restore one
    until_true "it to print more than $before" _prints_after "$before"
    [[ $(podman exec one id -u) == 0 ]] || fail "exec does not work"
    grep -q 100000 "/proc/$(podman inspect --format '{{.State.Pid}}' one)/uid_map" || fail "it has lost its ids"
  done
  podman logs one | tr -dc '0-9\n' | awk 'NF && $1 != NR {print "line " NR " is " $1; exit 1}' || fail "its log has a gap"
}

# LXC's monitor keeps the standard error of the command that made it: never a pipe.
lxc() {
  local tool=$1
  shift
  timeout "$HANG" "lxc-$tool" -P "$CASE/lxc" -n "$ID" "$@" </dev/null >"$CASE/$tool.out" 2>"$CASE/$tool.err" ||
    fail "lxc-$tool: $(tail -n 2 "$CASE/$tool.err" | tr '\n' ' ')$(explain)"
}
lxc_state() { lxc info -sH && cat "$CASE/info.out"; }
lxc_is() { [[ $(lxc_state) == "$1" ]]; }
end_lxc() {
  local pid
  lxc-stop -P "$CASE/lxc" -n "$ID" -k
  for pid in $(grep -lsF "$CASE/lxc" /proc/[0-9]*/cmdline | cut -d/ -f3); do
    [[ $pid == "$BASHPID" || $pid == "$$" ]] || kill -KILL "$pid"
  done
} 2>/dev/null

case_lxc() {
  command -v lxc-start >/dev/null && command -v lxc-checkpoint >/dev/null || { echo "skip: LXC is not installed"; exit 0; }
  local base=/usr/share/lxc/config root=$CASE/lxc/$ID/rootfs name before pid
  [[ -f $base/userns.conf ]] || { echo "skip: no $base/userns.conf"; exit 0; }
  at_exit end_lxc
  mkdir -p "$root"/{bin,sbin,dev,proc,sys,tmp,etc,root,run,files}
  ln -s "$root/files" "$FILES"
  cp "$(command -v busybox)" "$root/bin/busybox"
  for name in sh mv cat sleep echo id; do ln -sf busybox "$root/bin/$name"; done
  printf '#!/bin/sh\n%s\n' "$COUNTER" >"$root/sbin/init"
  chmod 755 "$root/sbin/init"
  chown -R 100000:200000 "$root"
  printf '%s\n' "lxc.include = $base/common.conf" "lxc.include = $base/userns.conf" "lxc.idmap = u 0 100000 65536" \
    "lxc.idmap = g 0 200000 65536" "lxc.uts.name = $ID" "lxc.arch = linux64" "lxc.rootfs.path = dir:$root" \
    "lxc.apparmor.profile = unconfined" "lxc.init.cmd = /sbin/init $ID" "lxc.net.0.type = empty" >"$CASE/lxc/$ID/config"
  { cat "$CASE/lxc/$ID/config"; echo 'lxc.tty.max = 0'; } >"$CASE/restore.conf"
  lxc start
  until_true "the container to count" test -s "$FILES/n"
  lxc info -pH
  ids_are_kept "$(cat "$CASE/info.out")"
  lxc checkpoint -D "$CASE/images" -v -s
  until_true "LXC to see it stopped" lxc_is STOPPED
  until_true "the tasks to go" _no_tasks
  before=$(count)
  lxc checkpoint -r -D "$CASE/images" -v --rcfile="$CASE/restore.conf"
  lxc_is RUNNING || fail "after the restore LXC says $(lxc_state)"
  counts_on "$before"
  lxc info -pH
  ids_are_kept "$(cat "$CASE/info.out")"
  lxc attach -- /bin/id -u
  [[ $(<"$CASE/attach.out") == 0 ]] || fail "lxc-attach is user $(<"$CASE/attach.out")"
}

run_cases
