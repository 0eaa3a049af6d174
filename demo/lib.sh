# SPDX-License-Identifier: Apache-2.0
# What the demonstrations share: lines, checks and timed steps. A script sets $work (its own temporary
# directory), defines clean_up, and ends with `the_end`. It exits non-zero if anything it showed is not true.
build=$(realpath "${STASIS_BUILD:-$(dirname "$0")/../build}")
stasis=$build/bin/stasis
failed=0
[ -t 1 ] && terminal=1 || terminal=

say() { printf '%s\n' "$*"; }
title() { printf '\n== %s\n' "$*"; }

# The 22nd field of /proc/PID/stat; the name in the 2nd may hold blanks.
start_of() { [ -n "${1:-}" ] && sed -n 's/^.*) //p' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }
alive() { [ -n "${1:-}" ] && [ "$(start_of "$1")" = "$2" ] && ! grep -q '^State:.[ZX]' "/proc/$1/status" 2>/dev/null; }

finish() { local rc=$?; trap '' INT TERM; clean_up; rm -rf --one-file-system "$work"; [ "$failed" = 0 ] || rc=1; exit "$rc"; }
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

die() { say "FAILED: $*"; failed=1; exit 1; }

check() { # check TEXT COMMAND...: one line, remembered when untrue
  local text=$1
  shift
  if "$@" >/dev/null 2>&1; then
    printf '   [true]  %s\n' "$text"
  else
    printf '   [FALSE] %s\n' "$text"
    failed=1
  fi
}

took() { # microseconds since $1, as milliseconds
  local now=${EPOCHREALTIME/[.,]/}
  printf '%d.%d ms' $(((now - $1) / 1000)) $(((now - $1) % 1000 / 100))
}

step() { # step TEXT COMMAND...: with its duration; ends the demo when it fails
  local text=$1 begin=${EPOCHREALTIME/[.,]/} rc=0 turn=0 pid
  shift
  "$@" >"$work/step.log" 2>&1 </dev/null &
  pid=$!
  if [ -n "$terminal" ]; then
    while kill -0 "$pid" 2>/dev/null; do
      printf '\r   %s %s' "${text}" "$(printf '|/-\\' | cut -c$((turn++ % 4 + 1)))"
      sleep 0.05
    done
    printf '\r\033[K'
  fi
  wait "$pid" || rc=$?
  printf '   %-62s %10s\n' "$text" "$(took "$begin")"
  [ "$rc" = 0 ] && return
  sed 's/^/     | /' "$work/step.log"
  for log in "$work"/w*/*.log; do [ -s "$log" ] && { say "     end of $log:"; tail -n 15 "$log" | sed 's/^/     | /'; }; done
  die "$text (exit status $rc)"
}

counter_moves() { # what the script's `counter` prints grows within ten seconds
  local from
  from=$(counter)
  for _ in $(seq 200); do
    [ "$(counter)" -gt "$from" ] 2>/dev/null && return 0
    sleep 0.05
  done
  return 1
}
the_end() {
  title "$([ "$failed" = 0 ] && echo 'All of it is true.' || echo 'Something above is NOT true.')"
  exit "$failed"
}
needs() { # programs, root and a build
  local tool
  [ "$(id -u)" = 0 ] || die "containers need root here; run as root"
  for tool; do command -v "$tool" >/dev/null || die "$tool is missing; run ./dev deps"; done
  [ -x "$stasis" ] && [ -x "$build/libexec/stasis/criu" ] || die "no build in $build; run ./dev build"
}
