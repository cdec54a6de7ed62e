#!/usr/bin/env bash
# What a change of policies does, before it is merged: checked, tested, and the decisions on record asked again under it.
# Prints a report in Markdown, for a comment; exit 0 if nothing stands against the merge.
#
#   DECISION_LOG=/var/lib/doorward/audit.jsonl examples/policy-gate.sh >report.md
#
# POLICIES, TESTS: the folders of the change.  SINCE: how far back (7d).  FAIL_ON, MOST: which differences count, and how
# many of them are fine; by default nobody may gain, and everything else is only told.
set -uo pipefail

doorward=${DOORWARD:-doorward}
policies=${POLICIES:-policies}
tests=${TESTS:-policy-tests}
log=${DECISION_LOG:?name the audit log}
outputs=$(mktemp -d)
trap 'rm -rf "$outputs"' EXIT

failed=()
step() {
  local name=$1 status=0
  shift
  "$@" >"$outputs/$name" 2>"$outputs/$name.err" || status=$?
  if [ "$status" -eq 0 ]; then
    echo "| $name | passed |"
  else
    failed+=("$name")
    echo "| $name | **failed**, exit status $status |"
  fi
}

echo "## What this change of policies does"
echo
echo "| step | result |"
echo "|---|---|"
step check "$doorward" policy check --policies "$policies"
step test "$doorward" policy check --policies "$policies" --tests "$tests" --threshold "${COVERAGE:-100}"
# The log is shown to policies that were checked, and to no others: a rule that asks the world outside could carry it there.
if [[ " ${failed[*]} " == *" check "* ]]; then
  echo "| replay | not run: the check failed |"
else
  step replay "$doorward" policy replay --against "$policies" --log "$log" --since "${SINCE:-7d}" \
    --fail-on "${FAIL_ON:-gains}" --max "${MOST:-0}" --markdown
fi

if [ -s "$outputs/replay" ]; then
  echo
  cat "$outputs/replay"
fi
for name in "${failed[@]}"; do
  [ "$name" = replay ] && [ -s "$outputs/replay" ] && continue
  echo
  echo "### $name"
  echo
  head -n 100 "$outputs/$name" "$outputs/$name.err" --quiet | sed 's/^/    /'
done
[ "${#failed[@]}" -eq 0 ]
