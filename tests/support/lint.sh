#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# House style: formatting of what changed, and a few rules of the rooms over all files.
set -uo pipefail
cd "$STASIS_SOURCE" || exit 1
bad=0
complain() { echo "lint: $*"; bad=1; }

sources() { git ls-files --cached --others --exclude-standard -- "$@" | while IFS= read -r f; do [[ -f $f ]] && echo "$f"; done; }

# clang-format: what differs from the last commit, what is not committed yet, and the last commit itself.
mapfile -t changed < <({ git diff --name-only HEAD; git diff --name-only HEAD~1 HEAD 2>/dev/null; git ls-files --others --exclude-standard; } |
  sort -u | grep -E '\.(cc|h)$')
for f in "${changed[@]}"; do
  [[ -f $f ]] || continue
  clang-format --dry-run --Werror "$f" 2>/dev/null || complain "$f: run clang-format -i"
done

while IFS= read -r f; do
  head -n 2 "$f" | grep -q 'SPDX-License-Identifier: Apache-2.0' || complain "$f: no SPDX line"
  (($(wc -l <"$f") <= 700)) || complain "$f: more than 700 lines"
  grep -nE '\b(TODO|FIXME|XXX)\b' "$f" | grep -v 'lint.sh' | sed "s|^|lint: $f:|" | grep . && bad=1
done < <(sources '*.cc' '*.h' '*.c' '*.sh' '*.py' '*.proto' '*.def' '*.cmake' CMakeLists.txt dev)

# Tasks are read from /proc in one room; a raw system call is made in one room.
while IFS= read -r f; do
  case $f in engine/procfs/* | engine/kernel_features.cc | tests/* | demo/*) continue ;; esac
  grep -nE '(open|read|readlink|opendir|list)[a-z_]*\([^)]*"/proc/' "$f" | grep -vE '"/proc/(self/fd|self/ns|sys|sysvipc)/' | sed "s|^|lint: $f: /proc outside engine/procfs: |" | grep . && bad=1
  case $f in engine/kernel/*) continue ;; esac
  grep -nE '(^|[^_a-z])syscall\((SYS|__NR)_' "$f" | sed "s|^|lint: $f: raw system call outside engine/kernel: |" | grep . && bad=1
done < <(sources '*.cc' '*.h')

while IFS= read -r f; do bash -n "$f" || bad=1; done < <(sources '*.sh' dev .ci/run)
((bad)) || echo "lint: clean"
exit $bad
