#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The network of containers: devices, addresses, routes and servers, before and after. Devices of the host that a case
# makes have the prefix $NET, which is its own, and are removed in the end, whatever happens.
. "$(dirname "$0")/lib.sh"

# Names of devices have at most 15 characters.
net_names() {
  NET=st$(( ($$ + ${ID##*-} * 32768) % 1000000 ))
  BRIDGE=${NET}b OUTER=${NET}o
  SUBNET=10.$((200 + $$ % 50)).$((${ID##*-} % 250))
}
inside() { nsenter -t "$(pid_of)" -n "$@"; }
devices_left() { ip -o link show 2>/dev/null | sed -n "s/^[0-9]*: \(${NET}[^:@]*\).*/\1/p"; }
remove_devices() { for device in $(devices_left); do ip link del "$device" 2>/dev/null || true; done; }
# Cases are subshells: what they made on the host goes with them.
net_case() {
  command -v ip >/dev/null || { echo "skip: iproute2 is not installed"; exit 0; }
  net_names
  at_exit remove_devices
  mkdir -p "$CASE/work"
}
web() { # a bundle that serves /files over HTTP and counts
  make_bundle "httpd -p ${1:-80} -h /files; $COUNTER"
  start
}
bridge_and_veth() {
  ip link add "$BRIDGE" type bridge || { echo "skip: no bridge in this kernel"; exit 0; }
  ip addr add "$SUBNET.1/24" dev "$BRIDGE"
  ip link set "$BRIDGE" up
  ip link add "$OUTER" mtu 1400 type veth peer name eth0 mtu 1400 netns "/proc/$(pid_of)/ns/net"
  ip link set "$OUTER" master "$BRIDGE" up
  inside ip link set eth0 address 02:00:00:11:22:33 up
  inside ip addr add "$SUBNET.2/24" brd + dev eth0
  inside ip -6 addr add "fd00:$((16#${SUBNET##*.} + 1))::2/64" dev eth0 nodad
  inside ip route add default via "$SUBNET.1"
  inside ip route add 10.199.0.0/16 via "$SUBNET.5" metric 50 mtu 1300
  inside ip -6 route add default via "fd00:$((16#${SUBNET##*.} + 1))::1"
}
# What the container has, without numbers that the other end gives.
describe_network() {
  local what
  for what in "-4 -o addr" "-6 -o addr" "-4 route" "-6 route"; do
    echo "-- $what"
    nsenter -t "$1" -n ip $what | sed 's/ nodad//; s/tentative *//; s/ linkdown//' | tr -s ' ' | sort
  done
  nsenter -t "$1" -n ip -o link | sed 's/@[^:]*:/:/; s/qdisc.*link/link/; s/link-netnsid.*//; s/,NO-CARRIER\|NO-CARRIER,\|,LOWER_UP\|,M-DOWN//' | tr -s ' '
  nsenter -t "$1" -n sh -c 'cat /proc/sys/net/ipv4/conf/eth0/rp_filter /proc/sys/net/ipv4/conf/all/forwarding 2>/dev/null'
}
answers() { # ADDRESS[:PORT]: the counter, over HTTP
  /usr/bin/python3 - "$1" <<'PY' >/dev/null 2>&1
import sys, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
int(opener.open(f'http://{sys.argv[1]}/n', timeout=5).read())
PY
}
_same_network() { describe_network "$1" >"$CASE/after"; cmp -s "$CASE/before" "$CASE/after"; }
bring() {
  must stasis restore --images-dir "$CASE/images" --work-dir "$CASE/work" -o restore.log -v4 --bundle "$BUNDLE" --detach --pidfile "$CASE/pid" "$@"
  PID=$(<"$CASE/pid")
  echo "$PID" >>"$CASE/pids"
}
# An action script that lets the restore fail when all is made.
failing_script() {
  printf '#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" != post-restore ]\n' >"$CASE/script"
  chmod 755 "$CASE/script"
}
_gone() { ! ip link show "$1" >/dev/null 2>&1; }

case_veth_on_a_bridge() {
  net_case
  web
  bridge_and_veth
  inside sh -c 'echo 2 >/proc/sys/net/ipv4/conf/eth0/rp_filter; echo 1 >/proc/sys/net/ipv4/conf/all/forwarding'
  until_true "an answer" answers "$SUBNET.2"
  describe_network "$(pid_of)" >"$CASE/before"
  take
  until_true "the veth to go" _gone "$OUTER"
  bring --external "veth[eth0]:${NET}n@$BRIDGE"
  ip -o link show "${NET}n" | grep -q "master $BRIDGE .*state UP" || fail "the outer end: $(ip -o link show "${NET}n")"
  ip -o link show "${NET}n" | grep -q 'mtu 1400' || fail "the outer end has another MTU"
  until_true "the same network ($(diff "$CASE/before" "$CASE/after" 2>/dev/null | tr '\n' ' '))" _same_network "$PID"
  until_true "an answer after restore" answers "$SUBNET.2"
  counts_on
  # And once more, from what was restored.
  local externals
  mapfile -t externals < <(awk '{ for (i = 7; $i != "-"; i++); type = $(i + 1)
    if ($4 == "/null") print "--external=mnt[" $5 "]:/dev/null"; else if ($5 == "/files" || type == "cgroup") print "--external=mnt[" $5 "]:" $5 }' \
    "/proc/$PID/mountinfo")
  rm -rf "$CASE/images"
  mkdir "$CASE/images"
  must stasis checkpoint --pid "$PID" -D "$CASE/images" --work-dir "$CASE/work" "${externals[@]}"
  until_true "the tasks to go" _no_tasks
  until_true "the veth to go" _gone "${NET}n"
  rm -f "$CASE/pid"
  bring --external "veth[eth0]:$OUTER@$BRIDGE"
  until_true "an answer after the second restore" answers "$SUBNET.2"
  kill -KILL "$PID"
  until_true "the veth to go" _gone "$OUTER"
}

case_images_are_read_by_ip_and_crit() {
  net_case
  web
  bridge_and_veth
  take
  [[ $(ip addr showdump <"$(echo "$CASE"/images/ifaddr-*.img)") == *"$SUBNET.2/24"* ]] || fail "ip cannot read ifaddr"
  [[ $(ip route showdump <"$(echo "$CASE"/images/route-*.img)") == *"default via $SUBNET.1"* ]] || fail "ip cannot read route"
  [[ $(ip -6 route showdump <"$(echo "$CASE"/images/route6-*.img)") == *"default via fd00"* ]] || fail "ip cannot read route6"
  crit decode -i "$(echo "$CASE"/images/netdev-*.img)" | grep -q '"eth0"' || fail "crit cannot read netdev"
  crit decode -i "$(echo "$CASE"/images/netns-*.img)" | grep -q 'all_conf4' || fail "crit cannot read netns"
  crit decode -i "$CASE/images/files.img" | grep -q '"isk"' || fail "crit cannot read the listening socket"
}

case_outer_end_gets_a_name() {
  net_case
  web
  bridge_and_veth
  take
  bring
  local outer
  outer=$(sed -n 's/.*its outer end is \([^ ]*\) .*/\1/p' "$CASE/said" "$CASE"/work/*.log | head -n 1)
  [[ -n $outer ]] || fail "the name is not said: $(<"$CASE/said")"
  ip link show "$outer" >/dev/null || fail "there is no $outer"
  nsenter -t "$PID" -n ip -4 addr show eth0 | grep -q "$SUBNET.2" || fail "no address"
  counts_on
}

case_macvlan() {
  net_case
  web
  ip link add "${NET}l" type veth peer name "${NET}p"
  ip link set "${NET}l" up
  ip link set "${NET}p" up
  ip link add "${NET}m" link "${NET}l" type macvlan mode bridge 2>/dev/null || { echo "skip: no macvlan in this kernel"; return 0; }
  ip link set "${NET}m" netns "/proc/$(pid_of)/ns/net" name eth0
  inside ip link set eth0 up
  inside ip addr add "$SUBNET.2/24" dev eth0
  describe_network "$(pid_of)" >"$CASE/before"
  take
  must_fail BAD-OPTION stasis restore --images-dir "$CASE/images" --work-dir "$CASE/work" --bundle "$BUNDLE" --detach
  grep -q 'macvlan\[eth0\]' "$CASE/said" || fail "the option is not named: $(<"$CASE/said")"
  bring --external "macvlan[eth0]:${NET}l"
  until_true "the same network" _same_network "$PID"
  nsenter -t "$PID" -n ip -d link show eth0 | grep -q 'macvlan mode bridge' || fail "not a macvlan"
  counts_on
}

# A device of the host takes the place of the container's, and goes back when the restore fails.
case_host_device() {
  net_case
  web
  bridge_and_veth
  take
  ip link add "${NET}h" type veth peer name "${NET}q"
  ip link set "${NET}q" master "$BRIDGE" up
  failing_script
  must_fail HOOK-FAILED stasis restore --images-dir "$CASE/images" --work-dir "$CASE/work" --bundle "$BUNDLE" --detach \
    --external "netdev[eth0]:${NET}h" --action-script "$CASE/script"
  ip link show "${NET}h" >/dev/null || fail "the device of the host is gone after a failure"
  bring --external "netdev[eth0]:${NET}h"
  ! ip link show "${NET}h" >/dev/null 2>&1 || fail "the device is still on the host"
  until_true "an answer after restore" answers "$SUBNET.2"
}

case_refused_before_anything_is_touched() {
  net_case
  web
  bridge_and_veth
  inside ip tuntap add tun7 mode tun || { echo "skip: no tun in this kernel"; return 0; }
  must_fail UNSUPPORTED-NAMESPACE stasis checkpoint "$ID" --images-dir "$CASE/images"
  grep -q 'tun7' "$CASE/said" || fail "the device is not named: $(<"$CASE/said")"
  inside ip link del tun7
  inside ip rule add from 10.1.2.3 table 77
  must_fail UNSUPPORTED-NAMESPACE stasis checkpoint "$ID" --images-dir "$CASE/images"
  grep -q 'routing rule' "$CASE/said" || fail "the rule is not named: $(<"$CASE/said")"
  inside ip rule del from 10.1.2.3 table 77
  inside tc qdisc add dev eth0 root pfifo limit 5 && {
    must_fail UNSUPPORTED-NAMESPACE stasis checkpoint "$ID" --images-dir "$CASE/images"
    grep -q 'pfifo' "$CASE/said" || fail "the queueing discipline is not named: $(<"$CASE/said")"
    inside tc qdisc del dev eth0 root
  }
  if command -v nft >/dev/null && inside nft add table inet kept; then
    must_fail UNSUPPORTED-NAMESPACE stasis checkpoint "$ID" --images-dir "$CASE/images"
    grep -q 'nftables table' "$CASE/said" || fail "the table is not named: $(<"$CASE/said")"
    inside nft delete table inet kept
  fi
  [[ ! -e $CASE/images/inventory.img ]] || fail "there are images"
  counts_on
  take
}

case_bad_externals() {
  net_case
  web
  bridge_and_veth
  take
  local external
  ip link add "${NET}x" type veth peer name "${NET}y"
  for external in "veth[eth0]:${NET}x" "veth[eth0]:../../etc" "veth[eth0]:" "veth[eth0]:${NET}n@no-such-bridge" "veth[eth0]:${NET}n@${NET}x" \
    "veth[eth0]:a-name-that-is-too-long" "netdev[eth0]:${NET}none"; do
    ABOUT=$external must_fail BAD-OPTION stasis restore --images-dir "$CASE/images" --work-dir "$CASE/work" --bundle "$BUNDLE" --detach --external "$external"
  done
  [[ -z $(tasks_left) ]] || fail "tasks are left"
  bring --veth-pair "eth0=${NET}n@$BRIDGE"
  until_true "an answer after restore" answers "$SUBNET.2"
}

# The address of a server must be free and ours.
case_address_is_taken() {
  net_case
  make_bundle "httpd -p 80 -h /files; $COUNTER"
  /usr/bin/python3 - "$BUNDLE/config.json" <<'PY'
import json, sys
path = sys.argv[1]
config = json.load(open(path))
config['linux']['namespaces'] = [n for n in config['linux']['namespaces'] if n['type'] != 'network']
config['process']['args'][2] = config['process']['args'][2].replace('-p 80', '-p 127.0.0.1:39871')
json.dump(config, open(path, 'w'))
PY
  start
  until_true "an answer" answers 127.0.0.1:39871
  take
  /usr/bin/python3 -c 'import socket, time
s = socket.create_server(("127.0.0.1", 39871)); time.sleep(1000)' </dev/null >/dev/null 2>&1 &
  echo $! >>"$CASE/pids"
  until_true "a stranger on the port" grep -qs ':9BBF 00000000:0000 0A' /proc/net/tcp
  must_fail RESTORE-FAILED stasis restore --images-dir "$CASE/images" --work-dir "$CASE/work" --bundle "$BUNDLE" --detach
  grep -q '127.0.0.1:39871' "$CASE/said" || fail "the address is not named: $(<"$CASE/said")"
  [[ -z $(tasks_left) ]] || fail "tasks are left"
  kill -KILL "$(tail -n 1 "$CASE/pids")"
  wait || true
  : >"$CASE/pids"
  bring
  until_true "an answer after restore" answers 127.0.0.1:39871
}

case_failed_restore_leaves_no_device() {
  net_case
  web
  bridge_and_veth
  take
  failing_script
  must_fail HOOK-FAILED stasis restore --images-dir "$CASE/images" --work-dir "$CASE/work" --bundle "$BUNDLE" --detach \
    --external "veth[eth0]:${NET}n@$BRIDGE" --action-script "$CASE/script"
  _gone "${NET}n" || fail "the veth is left"
  [[ -z $(tasks_left) ]] || fail "tasks are left"
}

# podman's default bridge: an external network namespace, which stays podman's business, and a published port.
podman_here() { podman --root "$CASE/podman" --runroot "$CASE/podrun" --tmpdir "$CASE/podtmp" --network-config-dir "$CASE/podnet" \
  --storage-driver vfs --cgroup-manager cgroupfs --events-backend file "$@"; }
podman_gone() {
  local bridge
  bridge=$(podman_here network inspect -f '{{.NetworkInterface}}' stasis 2>/dev/null) || true
  podman_here rm -f -a -t 0 >/dev/null 2>&1 || true
  [[ $bridge != podman[1-9]* ]] || ip link del "$bridge" 2>/dev/null || true
  umount "$CASE/podman/vfs" "$CASE/podman" 2>/dev/null || true
}
case_podman_bridge_and_published_port() {
  command -v podman >/dev/null || { echo "skip: podman is not installed"; return 0; }
  net_case
  at_exit 'podman_gone; remove_devices'
  # Its own network, so that the host's podman bridge is not touched.
  mkdir -p "$CASE/podnet"
  make_bundle true
  podman_here network create --subnet "$SUBNET.0/24" stasis >"$CASE/said" 2>&1 || fail "podman network create: $(<"$CASE/said")"
  tar -C "$BUNDLE/rootfs" -c . | podman_here import - stasis-web >"$CASE/said" 2>&1 || fail "podman import: $(tail -n 1 "$CASE/said")"
  podman_here run -d --name "$ID" --network stasis -p 127.0.0.1:39872:80 --runtime runc --ulimit nofile=1024:1024 --ulimit nproc=1000:1000 \
    -v "$FILES:/files" stasis-web httpd -f -p 80 -h /files >"$CASE/said" 2>&1 </dev/null || { echo "skip: podman run: $(tail -n 1 "$CASE/said")"; return 0; }
  echo 41 >"$FILES/n"
  until_true "an answer of the published port" answers 127.0.0.1:39872
  must podman_here container checkpoint "$ID"
  ! answers 127.0.0.1:39872 || fail "it still answers"
  echo 42 >"$FILES/n"
  must podman_here container restore "$ID"
  until_true "an answer of the published port after restore" answers 127.0.0.1:39872
  must podman_here container checkpoint "$ID"
  must podman_here container restore "$ID"
  until_true "an answer after the second restore" answers 127.0.0.1:39872
}

# Keeps sending to an echo server and says in $CASE/client how far it is, or what went wrong.
client_of() { # ADDRESS PORT [COMMAND...]
  local address=$1 port=$2
  shift 2
  cat >"$CASE/client.py" <<'PY'
import socket, sys
name, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
def say(text):
    with open(name, 'w') as file:
        file.write(text)
try:
    s = socket.create_connection((address, port))
    for turn in range(10 ** 9):
        sent = (b'%08d' % turn) * 2000
        s.sendall(sent)
        got = b''
        while len(got) < len(sent):
            part = s.recv(65536)
            if not part:
                raise EOFError('the server has ended')
            got += part
        assert got == sent, 'other bytes came back'
        say(str(turn))
except Exception as e:
    say(f'bad: {e!r}')
PY
  "$@" /usr/bin/python3 "$CASE/client.py" "$CASE/client" "$address" "$port" </dev/null >/dev/null 2>&1 &
  echo $! >>"$CASE/pids"
  until_true "the client to be served" _turns_after -1
}
_turns() { cat "$CASE/client" 2>/dev/null || true; }
_turns_after() { local now; now=$(_turns); [[ $now != bad* ]] || fail "the client says: $now"; [[ -n $now && $now -gt $1 ]]; }
client_goes_on() { # after a restore
  local before
  before=$(_turns)
  _turns_after -1 || true
  until_true "the client to be served after restore" _turns_after "$before"
}

# Own network namespace, a client outside of it that sends all the time: it sees no reset.
case_connection_to_a_container() {
  net_case
  make_bundle "nc -ll -p 7777 -e cat & httpd -p 80 -h /files; $COUNTER"
  start
  bridge_and_veth
  client_of "$SUBNET.2" 7777
  must stasis checkpoint "$ID" --images-dir "$CASE/images" --work-dir "$CASE/work" -o dump.log --leave-running
  client_goes_on
  rm -rf "$CASE/images"
  take
  until_true "the veth to go" _gone "$OUTER"
  bring --external "veth[eth0]:$OUTER@$BRIDGE"
  client_goes_on
}

# Instead of `start`: in the host's network, and $OTHER is a process in another one beside it.
in_the_hosts_network() {
  /usr/bin/python3 - "$BUNDLE/config.json" <<'PY'
import json, sys
path = sys.argv[1]
config = json.load(open(path))
config['linux']['namespaces'] = [n for n in config['linux']['namespaces'] if n['type'] != 'network']
json.dump(config, open(path, 'w'))
PY
  unshare -n sleep 1000 </dev/null >/dev/null 2>&1 &
  OTHER=$!
  echo $OTHER >>"$CASE/pids"
  until_true "a second namespace" _other_namespace "$OTHER"
  ip link add "$OUTER" type veth peer name eth0 netns "/proc/$OTHER/ns/net" || { echo "skip: no veth in this kernel"; exit 0; }
  ip addr add "$SUBNET.1/24" dev "$OUTER"
  ip link set "$OUTER" up
  nsenter -t "$OTHER" -n ip addr add "$SUBNET.2/24" dev eth0
  nsenter -t "$OTHER" -n ip link set eth0 up
  start
}

# The network of the host, which goes on without the container: it must not reset what it does not know meanwhile.
case_connection_to_the_hosts_network() {
  net_case
  make_bundle "nc -ll -p 7777 -e cat & $COUNTER"
  in_the_hosts_network
  client_of "$SUBNET.1" 7777 nsenter -t "$OTHER" -n
  take
  sleep 1 # the client sends again
  _turns_after -1 || true
  bring
  client_goes_on
}

# What will not be restored is forgotten by `recover`; skipped or dropped connections are gone afterwards.
case_lock_is_left_and_removed() {
  net_case
  make_bundle "nc -ll -p 7777 -e cat & $COUNTER"
  start
  inside ip link set lo up
  client_of 127.0.0.1 7777 nsenter -t "$(pid_of)" -n
  must stasis checkpoint "$ID" --images-dir "$CASE/images" --work-dir "$CASE/work" -o dump.log --leave-running
  [[ -z $(inside nft list tables 2>/dev/null | grep stasis-lock) ]] || fail "a lock is left of a container that runs on"
  client_goes_on
  unharmed
  rm -rf "$CASE/images"
  take
  unshare -n stasis recover >"$CASE/said" || fail "recover: $(<"$CASE/said")"
  bring --tcp-close
  _closed() { ! grep -q ':1E61 .* 01 ' "/proc/$PID/net/tcp" "/proc/$PID/net/tcp6"; }
  _closed || fail "a connection is left: $(cat "/proc/$PID/net/tcp")"
  grep -q ':1E61 .* 0A ' "/proc/$PID/net/tcp" "/proc/$PID/net/tcp6" || fail "the server does not listen"
}
_other_namespace() { [[ $(readlink "/proc/$1/ns/net") != $(readlink /proc/self/ns/net) ]]; }

# Asks a web server again and again, with several connections at once: each must be answered in full. $CASE/client as above.
clients_of() { # ADDRESS[:PORT]
  cat >"$CASE/clients.py" <<'PY'
import http.client, sys, threading
name, address, answers, lock = sys.argv[1], sys.argv[2], [0], threading.Lock()
def say(text):
    with open(name, 'w') as file:
        file.write(text)
def ask():
    try:
        while True:
            connection = http.client.HTTPConnection(address, timeout=120)
            connection.request('GET', '/page')
            answer = connection.getresponse().read()
            connection.close()
            assert answer == b'0123456789' * 3000, f'{len(answer)} bytes'
            with lock:
                if answers[0] >= 0:
                    answers[0] += 1
                    say(str(answers[0]))
    except Exception as e:
        with lock:
            answers[0] = -1
            say(f'bad: {e!r}')
for _ in range(8):
    threading.Thread(target=ask).start()
PY
  /usr/bin/python3 "$CASE/clients.py" "$CASE/client" "$1" </dev/null >/dev/null 2>&1 &
  echo $! >>"$CASE/pids"
  until_true "the clients to be served" _turns_after 20
}

# A server under load: there is always somebody whom it has not accepted yet, and nobody is lost.
case_accept_under_load() {
  net_case
  make_bundle "httpd -p 80 -h /files; $COUNTER"
  start
  bridge_and_veth
  # While the container is away its address stays known: what is sent there waits. A bridge that takes its own address
  # from its ports would forget it.
  ip link set "$BRIDGE" address 02:00:00:99:00:01
  ip neigh replace "$SUBNET.2" lladdr 02:00:00:11:22:33 dev "$BRIDGE" nud permanent
  /usr/bin/python3 -c 'print("0123456789" * 3000, end="")' >"$FILES/page"
  clients_of "$SUBNET.2"
  must stasis checkpoint "$ID" --images-dir "$CASE/images" --work-dir "$CASE/work" -o dump.log --leave-running
  client_goes_on
  local round
  for round in 1 2 3; do
    rm -rf "$CASE/images" "$CASE/pid"
    if ((round == 1)); then take; else again; fi
    until_true "the veth to go" _gone "$OUTER"
    bring --external "veth[eth0]:$OUTER@$BRIDGE"
    client_goes_on
    counts_on
  done
}
# Checkpoint of what was restored.
again() {
  local externals
  mapfile -t externals < <(awk '{ for (i = 7; $i != "-"; i++); type = $(i + 1)
    if ($4 == "/null") print "--external=mnt[" $5 "]:/dev/null"; else if ($5 == "/files" || type == "cgroup") print "--external=mnt[" $5 "]:" $5 }' \
    "/proc/$PID/mountinfo")
  mkdir -p "$CASE/images"
  must stasis checkpoint --pid "$PID" -D "$CASE/images" --work-dir "$CASE/work" "${externals[@]}"
  until_true "the tasks to go" _no_tasks
}

_listens() { grep -q ':1E61 .* 0A ' "/proc/$1/net/tcp" "/proc/$1/net/tcp6"; }
# Nobody accepts: refused by name, or dropped as asked for. The peer gets a reset with the next packet it sends.
case_skip_in_flight() {
  net_case
  make_bundle "nc -ll -p 7777 -e cat & echo \$! >/files/server; $COUNTER"
  start
  bridge_and_veth
  until_true "the server to listen" _listens "$(pid_of)"
  nsenter -t "$(pid_of)" -p kill -STOP "$(<"$FILES/server")"
  cat >"$CASE/one.py" <<'PY'
import os, socket, sys, time
name, address = sys.argv[1:]
s = socket.create_connection((address, 7777))
def say(text):
    with open(name, 'w') as file:
        file.write(text)
say('connected')
while not os.path.exists(name + '.go'):
    time.sleep(0.02)
try:
    s.sendall(b'x')
    say(f'got {s.recv(1)!r}')
except ConnectionResetError:
    say('reset')
PY
  /usr/bin/python3 "$CASE/one.py" "$CASE/one" "$SUBNET.2" </dev/null >/dev/null 2>&1 &
  echo $! >>"$CASE/pids"
  _says() { [[ $(cat "$CASE/one" 2>/dev/null) == "$1" ]]; }
  until_true "the client to be connected" _says connected
  must_fail UNSUPPORTED-FILE stasis checkpoint "$ID" --images-dir "$CASE/images" --work-dir "$CASE/work" -o dump.log
  grep -q '1 connections not yet accepted' "$CASE/said" || fail "it says: $(tail -n 2 "$CASE/said")"
  [[ -z $(inside nft list tables 2>/dev/null) ]] || fail "a lock is left: $(inside nft list tables)"
  counts_on
  take --skip-in-flight
  until_true "the veth to go" _gone "$OUTER"
  bring --external "veth[eth0]:$OUTER@$BRIDGE"
  counts_on
  touch "$CASE/one.go"
  until_true "the client to hear of it" _says reset
  nsenter -t "$PID" -p -n kill -CONT "$(<"$FILES/server")"
  client_of "$SUBNET.2" 7777
}

# The engine is killed with everything locked: nothing of it is left, and the connections go on.
engine_dies() {
  cat >"$CASE/script" <<EOF
#!/bin/sh
[ "\$CRTOOLS_SCRIPT_ACTION" = post-dump ] || exit 0
nsenter -t $(pid_of) -n nft list tables >"$CASE/locked" 2>&1
touch "$CASE/killed"
kill -KILL \$PPID
EOF
  chmod 755 "$CASE/script"
  local status=0
  locks >"$CASE/before"
  stasis checkpoint "$ID" --images-dir "$CASE/images" --work-dir "$CASE/work" --action-script "$CASE/script" </dev/null >"$CASE/said" 2>&1 || status=$?
  ((status != 0)) && [[ -e $CASE/killed ]] || fail "the engine was not killed: $(tail -n 2 "$CASE/said")"
  if command -v nft >/dev/null; then
    [[ -n $(grep -o 'stasis-lock-[0-9a-f]*' "$CASE/locked" | grep -vxFf "$CASE/before") ]] || fail "there was no lock: $(<"$CASE/locked")"
    until_true "the lock to go" _unlocked
  fi
}
# Those of others in the same network do not count.
locks() { inside nft list tables 2>/dev/null | grep -o 'stasis-lock-[0-9a-f]*' || true; }
_unlocked() { [[ -z $(locks | grep -vxFf "$CASE/before") ]]; }
case_engine_is_killed() {
  net_case
  make_bundle "nc -ll -p 7777 -e cat & $COUNTER"
  start
  bridge_and_veth
  client_of "$SUBNET.2" 7777
  engine_dies
  client_goes_on
  counts_on
  inside ip -o link show eth0 | grep -q 'state UP' || fail "the link: $(inside ip -o link show eth0)"
  unharmed
}
# The same in the network of the host; and what a checkpoint has left there that nobody restores is removed by `recover`.
case_engine_is_killed_in_the_hosts_network() {
  net_case
  make_bundle "nc -ll -p 7777 -e cat & $COUNTER"
  in_the_hosts_network
  client_of "$SUBNET.1" 7777 nsenter -t "$OTHER" -n
  engine_dies
  client_goes_on
  counts_on
  rm -rf "$CASE/images"
  take
  ! command -v nft >/dev/null || [[ $(nft list tables) == *stasis-lock* ]] || fail "there is no lock"
  stasis recover >"$CASE/said" || fail "recover: $(<"$CASE/said")"
  grep -q '^removed network lock stasis-lock-' "$CASE/said" || fail "recover says: $(<"$CASE/said")"
  ! command -v nft >/dev/null || [[ $(nft list tables) != *stasis-lock* ]] || fail "the lock is still there"
  stasis recover >"$CASE/said" && [[ ! -s $CASE/said ]] || fail "recover says once more: $(<"$CASE/said")"
}

run_cases
