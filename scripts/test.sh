#!/bin/sh
# All tests, several at a time; what then failed, if it is little, once more alone: docs/adr/0021.
# Usage: sh scripts/test.sh PYTHON WORKERS [ARGUMENT OF PYTEST...]
set -u
python=$1 workers=$2
shift 2
failed=$(mktemp)
trap 'rm -f "$failed"' EXIT
MOORAGE_TEST_FAILED=$failed "$python" -m pytest -n "$workers" "$@"
code=$?
count=$(grep -c . "$failed")
if [ "$code" -ne 1 ] || [ "$count" -eq 0 ] || [ "$count" -gt 3 ]; then
    exit "$code"
fi
printf '\nfailed beside others, and run once more alone:\n'
cat "$failed"
MOORAGE_TEST_ALONE=1 "$python" -m pytest "@$failed" || exit
printf '\npassed alone, so each is a defect of a test or of moorage under load, to be mended:\n'
cat "$failed"
