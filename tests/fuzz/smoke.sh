#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Each fuzz driver over its corpus and then seeded mutations: a fixed number of them as a test
# (the same inputs every time), or for a while with --seconds N and a new seed each round.
set -uo pipefail
seconds=0
[[ ${1:-} == --seconds ]] && seconds=$2
filter=${STASIS_TEST_FILTER:-}
runs=${STASIS_FUZZ_RUNS:-2000}
bad=0 found=0
for driver in "$STASIS_BUILD"/bin/fuzz_*; do
  [[ -x $driver ]] || continue
  found=1
  name=${driver##*/}
  [[ -z $filter || "fuzz $name" == *"$filter"* ]] || continue
  corpus=("$STASIS_SOURCE/tests/fuzz/corpus/${name#fuzz_}"/*)
  [[ -e ${corpus[0]} ]] || corpus=()
  end=$((SECONDS + seconds)) seed=1
  while :; do
    output=$(timeout -k 5 300 "$driver" --runs "$runs" --seed "$seed" "${corpus[@]}" 2>&1)
    status=$?
    if ((status != 0)); then
      echo "FAIL fuzz $name: status $status with --runs $runs --seed $seed: $(tail -n 3 <<<"$output" | tr '\n' ' ')"
      bad=1
      break
    fi
    ((SECONDS < end)) || { echo "ok fuzz $name"; break; }
    ((++seed))
  done
done
((found)) || { echo "FAIL fuzz: no driver is built"; exit 1; }
exit $bad
