#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The image directory: Debian's crit reads every file, it is committed whole, and stats have what clients read.
. "$(dirname "$0")/lib.sh"

a_checkpoint() {
  make_bundle --tmpfs /scratch "echo x >/scratch/f; (while :; do echo t; sleep 0.1; done | cat >/dev/null) & $COUNTER"
  start
  checkpoint "$@"
}

case_crit_decodes_every_file() {
  a_checkpoint
  local file name decoded=0
  for file in "$CASE"/images/*.img; do
    name=${file##*/}
    case $name in
      pages-*.img | *.tar.gz.img) continue ;;  # raw contents, no records
      stasis*) continue ;;                     # our own, beside the interface
    esac
    crit decode -i "$file" -o "$CASE/json" 2>"$CASE/err" || fail "$name: $(tail -n 1 "$CASE/err")"
    /usr/bin/python3 -c 'import json, sys; d = json.load(open(sys.argv[1])); assert d["magic"]' "$CASE/json" || fail "$name: not the JSON crit makes"
    # Back and forth gives the same again. (Not the same bytes: this crit drops fields that are newer than it.)
    crit encode -i "$CASE/json" -o "$CASE/again" 2>"$CASE/err" || fail "$name: encode: $(tail -n 1 "$CASE/err")"
    crit decode -i "$CASE/again" -o "$CASE/json2" 2>"$CASE/err" || fail "$name: second decode: $(tail -n 1 "$CASE/err")"
    cmp -s "$CASE/json" "$CASE/json2" || fail "$name: changed by crit encode"
    ((++decoded))
  done
  ((decoded >= 15)) || fail "only $decoded files"
}

case_expected_files_are_there() {
  a_checkpoint
  local pattern
  for pattern in inventory pstree 'core-*' 'mm-*' 'pagemap-*' 'pages-*' files 'fdinfo-*' 'fs-*' 'ids-*' 'mountpoints-*' 'utsns-*' seccomp 'tmpfs-*'; do
    compgen -G "$CASE/images/$pattern.img" >/dev/null || compgen -G "$CASE/images/$pattern.tar.gz.img" >/dev/null ||
      [[ $pattern == seccomp ]] || fail "no $pattern.img"
  done
}

case_nothing_but_plain_files() {  # podman and others pack the directory
  a_checkpoint
  local odd
  odd=$(find "$CASE/images" -mindepth 1 ! -type f ! -type l | tr '\n' ' ')
  [[ -z $odd ]] || fail "not a plain file: $odd"
  [[ -z $(find "$CASE/images" -name '.*' -mindepth 1) ]] || fail "left from staging: $(ls -A "$CASE/images")"
}

case_stats() {
  a_checkpoint
  crit decode -i "$CASE/work/stats-dump" >"$CASE/json" 2>&1 || fail "stats-dump: $(<"$CASE/json")"
  grep -q frozen_time "$CASE/json" && grep -q pages_written "$CASE/json"
  restore
  crit decode -i "$CASE/work/stats-restore" >"$CASE/json" 2>&1 || fail "stats-restore: $(<"$CASE/json")"
  grep -q restore_time "$CASE/json"
}

case_moved_directory_still_restores() {
  a_checkpoint
  mkdir "$CASE/packed"
  tar -C "$CASE/images" -cf - . | tar -C "$CASE/packed" -xf -
  rm -rf "$CASE/images"
  mv "$CASE/packed" "$CASE/images"
  restore
  counts_on
}

# CRIU has one file for all that is open of an inode or maps it, and tells the mode of a mapping beside the mapping.
case_mappings_with_open_flags_of_their_own() {
  mkdir -p "$FILES" "$CASE/images"
  printf '%15d\n' 0 >"$FILES/n"
  setsid /usr/bin/python3 -c 'import ctypes, os, sys, time
os.closerange(3, 4096)
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
fd = os.open(sys.argv[2], os.O_RDWR)
area = libc.mmap(None, 4096, 3, 1, fd, 0)
os.close(fd)
n = 0
while True:
    n += 1
    ctypes.memmove(area, b"%15d" % n, 15)
    time.sleep(0.02)' "$ID" "$FILES/n" </dev/null >/dev/null 2>&1 &
  PID=$!
  echo "$PID" >>"$CASE/pids"
  counts_on 0
  must criu dump -t "$PID" -D "$CASE/images" -o dump.log
  wait "$PID" 2>/dev/null || true
  /usr/bin/python3 - "$CASE/images" "$PID" "$FILES/n" <<'PY' || fail "the images cannot be changed"
import os, sys
sys.path.append('/usr/lib/python3/dist-packages')
import pycriu
def change(name, edit):
    with open(f'{sys.argv[1]}/{name}', 'rb') as file:
        image = pycriu.images.load(file)
    edit(image['entries'])
    with open(f'{sys.argv[1]}/{name}', 'wb') as file:
        pycriu.images.dump(image, file)
ids = set()
def close_for_writing(files):
    for file in files:
        if file.get('reg', {}).get('name') == sys.argv[3]:
            assert file['reg']['flags'] & 3 == os.O_RDWR
            file['reg']['flags'] = 0
            ids.add(file['id'])
def tell_flags(mm):
    mappings = [vma for vma in mm[0]['vmas'] if vma['shmid'] in ids and vma['flags'] & 1]
    assert len(mappings) == 1
    mappings[0]['fdflags'] = os.O_RDWR
change('files.img', close_for_writing)
change(f'mm-{sys.argv[2]}.img', tell_flags)
os.unlink(f'{sys.argv[1]}/stasis-manifest.img')
PY
  local before
  before=$(count)
  must criu restore -d -D "$CASE/images" -o restore.log
  counts_on "$before"
}

run_cases
