#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The tables of README.md are true: every test they name exists, and every error code is in errors.def.
. "$(dirname "$0")/lib.sh"
README=$STASIS_SOURCE/README.md

all_tests() {
  /usr/bin/python3 "$STASIS_SOURCE/tests/live/run.py" --list
  local script
  for script in "$STASIS_SOURCE"/tests/integration/*.sh; do
    [[ $script == */lib.sh ]] || STASIS_TEST_LIST=1 bash "$script"
  done
  for script in "$STASIS_SOURCE"/tests/integration/*.py; do STASIS_TEST_LIST=1 /usr/bin/python3 "$script"; done
}

# Rows look like: | what | how far | `live pipes`, `runc tmpfs_content` |
case_support_table_names_tests_that_exist() {
  all_tests >"$CASE/tests"
  local name rows=0
  while IFS= read -r name; do
    grep -qF "$name" "$CASE/tests" || fail "README names a test that does not exist: $name"
    ((++rows))
  done < <(sed -n '/<!-- support table -->/,/<!-- end -->/p' "$README" | grep '^|' | tail -n +3 | awk -F'|' '{print $4}' | grep -o '`[^`]*`' | tr -d '`')
  ((rows > 25)) || fail "only $rows test names in the support table"
}

case_every_live_program_is_in_the_table() {
  local program name
  for program in "$STASIS_SOURCE"/tests/live/*.c; do
    name=$(basename "$program" .c)
    [[ $name == refused || $name == cgroup ]] || grep -q "\`live $name" "$README" || fail "README does not name live $name"
  done
}

case_every_refusal_is_in_the_table() {
  local name
  for name in $(sed -n "s/^    ('\([a-z_]*\)', .*/\1/p" "$STASIS_SOURCE/tests/support/stasis_test/refusals.py"); do
    grep -q "\`live refused/$name\`" "$README" || fail "README does not name live refused/$name"
  done
}

case_codes_exist() {
  local code
  for code in $(grep -ohE 'STASIS-E-[A-Z]+(-[A-Z]+)*' "$README" "$STASIS_SOURCE"/*.md "$STASIS_SOURCE"/tests/support/stasis_test/refusals.py | sort -u); do
    grep -q "\"$code\"" "$STASIS_SOURCE/engine/base/errors.def" || fail "$code is not in errors.def"
  done
}

case_links_resolve() {
  local file target
  for file in "$STASIS_SOURCE"/*.md; do
    while IFS= read -r target; do
      [[ -e $(dirname "$file")/$target ]] || fail "$(basename "$file") points to $target"
    done < <(grep -oE '\]\([^)#:]+\)' "$file" | sed 's/^](//; s/)$//')
  done
}

run_cases
