#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# AppArmor's profiles of threads, where the kernel has AppArmor and the host the parser for it.
. "$(dirname "$0")/lib.sh"

usable() {
  [[ $(cat /sys/module/apparmor/parameters/enabled 2>/dev/null) == Y ]] || { echo "skip: this kernel has no AppArmor"; return 1; }
  command -v apparmor_parser >/dev/null || { echo "skip: there is no apparmor_parser"; return 1; }
  [[ -e /sys/kernel/security/apparmor ]] || mount -t securityfs securityfs /sys/kernel/security
}
# profile NAME [RULE...]: everything is allowed but what the rules deny.
profile() {
  local name=$1
  shift
  printf '%s\n' "profile $name flags=(attach_disconnected,mediate_deleted) {" \
    '  file, network, unix, signal, capability, ptrace, mount, umount, pivot_root, dbus,' '  change_profile,' "$@" '}' >"$CASE/$name"
  apparmor_parser -K -r "$CASE/$name"
}
unload() { local file; for file in "$@"; do apparmor_parser -R "$CASE/$file" 2>/dev/null; done; }
label() { cat "/proc/$1/attr/apparmor/current" 2>/dev/null || cat "/proc/$1/attr/current"; }
has_label() { [[ $(label "$1") == "$2" ]] || fail "${3:-pid $1} has the label '$(label "$1")', not '$2'"; }

# A root under profile A with a thread under A and B at once; a child under B that has given up everything and has
# named a profile for its next program; a child without any. It may not read $CASE/secret.
labelled() {
  A=$ID-a B=$ID-b
  echo secret >"$CASE/secret"
  profile "$A" "  deny $CASE/secret r,"
  profile "$B"
  mkdir -p "$FILES" "$CASE/images" "$CASE/work"
  setsid /usr/bin/python3 -c '
import ctypes, os, sys, threading, time
_, mark, files, secret, a, b = sys.argv
os.closerange(3, 4096)
def order(text, name="current"):
    with open(f"/proc/thread-self/attr/{name}", "w") as file:
        file.write(text)
def publish(name, text):
    with open(f"{files}/{name}.new", "w") as file:
        file.write(str(text))
    os.rename(f"{files}/{name}.new", f"{files}/{name}")
if os.fork() == 0:
    publish("free", os.getpid())
    while True: time.sleep(1)
if os.fork() == 0:
    order(f"exec {a}", "exec")
    order(f"changeprofile {b}")
    ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
    while True:
        publish("next", open("/proc/thread-self/attr/exec").read().strip("\0\n "))
        publish("child", os.getpid())
        time.sleep(0.1)
order(f"changeprofile {a}")
def other():
    order(f"changeprofile {a}//&{b}")
    publish("thread", threading.get_native_id())
    while True: time.sleep(1)
threading.Thread(target=other).start()
n = 0
while True:
    n += 1
    try:
        open(secret).read()
        publish("n", "it could read")
        break
    except PermissionError:
        publish("n", n)
    time.sleep(0.02)' "$ID" "$FILES" "$CASE/secret" "$A" "$B" </dev/null >/dev/null 2>&1 &
  PID=$!
  echo "$PID" >>"$CASE/pids"
  for file in n child thread free; do until_true "the program to say $file" test -s "$FILES/$file"; done
}
labels_are() {
  has_label "$PID" "$1 (enforce)" "the root"
  has_label "$PID/task/$(<"$FILES/thread")" "${2:-$A//&$B} (enforce)" "the thread"
  local child
  child=$(<"$FILES/child")
  has_label "$child" "$B (enforce)" "the child"
  rm -f "$FILES/next"
  until_true "the child to tell of its next program" test -s "$FILES/next"
  [[ $(<"$FILES/next") == "$A"* ]] || fail "the next program's label is '$(<"$FILES/next")'"
  [[ $(awk '/^NoNewPrivs/ {print $2}' "/proc/$child/status") == 1 ]] || fail "no_new_privs is lost"
  has_label "$(<"$FILES/free")" "${3:-unconfined}" "the other child"
  counts_on
}
dump() { rm -rf "$CASE/images"; mkdir "$CASE/images"; must criu dump -t "$PID" -D "$CASE/images" -o dump.log -v4 "$@"; }
back() {
  must criu restore -d -D "$CASE/images" -o restore.log -v4 --pidfile "$CASE/pid" "$@"
  PID=$(<"$CASE/pid")
  rm -f "$CASE/pid"
}

case_labels_come_back_twice() {
  usable || return 0
  at_exit 'unload "$A" "$B"'
  labelled
  labels_are "$A"
  dump --leave-running
  labels_are "$A"
  local round
  for round in 1 2; do
    dump
    back
    labels_are "$A"
  done
  crit decode -i "$CASE/images/core-$PID.img" | grep -q "\"lsm_profile\": \"$A\"" || fail "the image does not name the profile"
}

case_profile_is_not_loaded() {
  usable || return 0
  at_exit 'unload "$A" "$B"'
  labelled
  dump
  unload "$A"
  must_fail RESTORE-FAILED criu restore -d -D "$CASE/images" -o restore.log -v4
  grep -q "$A.*is not loaded" "$CASE/said" "$CASE/images/restore.log" || fail "the profile is not named"
  nothing_left
  profile "$A" "  deny $CASE/secret r,"
  back
  labels_are "$A"
}

case_renamed() {
  usable || return 0
  at_exit 'unload "$A" "$B" "$C"'
  labelled
  dump
  C=$ID-c
  profile "$C" "  deny $CASE/secret r,"
  back --lsm-profile "apparmor:$C"
  labels_are "$C"
  dump
  back --lsm-profile apparmor:generated
  labels_are "$C"
  dump
  back --lsm-profile apparmor:unconfined
  has_label "$PID" unconfined
}

# runc gives its container a profile, and passes another one on.
case_runc() {
  usable || return 0
  at_exit 'unload "$A" "$B"'
  A=$ID-a B=$ID-b
  profile "$A"
  profile "$B"
  make_bundle
  sed -i "0,/\"noNewPrivileges\": *\(true\|false\)/s//\"noNewPrivileges\": true, \"apparmorProfile\": \"$A\"/" "$BUNDLE/config.json"
  grep -q apparmorProfile "$BUNDLE/config.json" || sed -i "0,/\"process\": *{/s//\"process\": {\"apparmorProfile\": \"$A\",/" "$BUNDLE/config.json"
  start
  has_label "$(pid_of)" "$A (enforce)"
  checkpoint
  restore
  has_label "$(pid_of)" "$A (enforce)"
  counts_on
  rm -rf "$CASE/images"
  checkpoint
  restore --lsm-profile "apparmor:$B"
  has_label "$(pid_of)" "$B (enforce)"
  counts_on
}

# A domain of Landlock is seen from within a profile too, and a profile is not taken for one.
case_landlock_within_a_profile() {
  usable || return 0
  at_exit 'unload "$A"'
  A=$ID-a
  profile "$A"
  mkdir -p "$CASE/images" "$FILES" && chmod 777 "$FILES"
  setsid /usr/bin/python3 -c '
import ctypes, os, sys, time
_, mark, ready, go, a = sys.argv
os.closerange(3, 4096)
open("/proc/self/attr/current", "w").write(f"changeprofile {a}")
os.setresgid(1234, 1234, 1234), os.setresuid(1234, 1234, 1234)
libc = ctypes.CDLL(None)
libc.prctl(38, 1, 0, 0, 0)
open(ready + "1", "w").close()
while not os.path.exists(go): time.sleep(0.02)
rules = libc.syscall(444, (ctypes.c_uint64 * 1)(1 << 9), 8, 0)
if rules < 0 or libc.syscall(446, rules, 0): os._exit(1)
os.close(rules)
open(ready + "2", "w").close()
while True: time.sleep(1)' "$ID" "$FILES/ready" "$FILES/go" "$A" </dev/null >/dev/null 2>&1 &
  PID=$!
  echo "$PID" >>"$CASE/pids"
  until_true "the program to give up its rights" test -e "$FILES/ready1"
  dump --leave-running
  touch "$FILES/go"
  until_true "the program to enter a domain" test -e "$FILES/ready2"
  rm -rf "$CASE/images" && mkdir "$CASE/images"
  must_fail UNSUPPORTED criu dump -t "$PID" -D "$CASE/images" -o dump.log -v4
  grep -q "is in a Landlock domain" "$CASE/said" "$CASE/images/dump.log" || fail "the domain is not named"
  no_checkpoint_in "$CASE/images"
}

run_cases
