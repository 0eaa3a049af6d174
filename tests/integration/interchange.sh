#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Every live program between Debian's criu and our engine, in both directions; where that criu runs: ./dev vm.
: "${STASIS_SOURCE:=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}"
PEER=${STASIS_TEST_PEER:-/usr/sbin/criu}
[[ -z ${STASIS_TEST_LIST:-} ]] || exec /usr/bin/python3 "$STASIS_SOURCE/tests/live/run.py" --peer "$PEER" --list
[[ -z ${STASIS_TEST_FILTER:-} || "interchange live programs" == *"$STASIS_TEST_FILTER"* || $STASIS_TEST_FILTER == interchange* ]] || exit 0
if [[ ${STASIS_IN_VM:-} != 1 && -z ${STASIS_TEST_PEER:-} ]]; then
  echo "skip interchange live programs: Debian's criu does not run on this kernel; ./dev vm"
elif [[ ! -x $PEER ]]; then
  echo "skip interchange live programs: no $PEER"
else
  filter=${STASIS_TEST_FILTER:-}
  [[ $filter == interchange* ]] || filter=
  exec /usr/bin/python3 "$STASIS_SOURCE/tests/live/run.py" --peer "$PEER" --filter "$filter"
fi
