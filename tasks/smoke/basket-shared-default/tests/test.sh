#!/bin/bash
# Grades the work directory: 1 in reward.txt only when every test beside this script ran and passed.
# TESTBED and VERIFIER_DIR exist so that the same script can grade a copy outside a container.
set -u
tests="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
export TESTBED="${TESTBED:-/testbed}"
logs="${VERIFIER_DIR:-/logs/verifier}"
mkdir -p "$logs"
echo 0 > "$logs/reward.txt"

# -I: nothing in the work directory is imported by accident (no current directory, no PYTHON* variables,
# no user site); the tests append TESTBED to sys.path, behind the standard library.
# The verdict line is asked for besides the exit code: code under test that ends the interpreter early,
# or skips, leaves no bare "OK".
cd "$tests" || exit 1
timeout -k 5 60 python3 -I -B -m unittest discover -v -s "$tests" -t "$tests" -p 'test_*.py' \
    2> "$logs/unittest.txt"
status=$?
cat "$logs/unittest.txt"
if [ "$status" -eq 0 ] && grep -qx 'OK' "$logs/unittest.txt"; then
    echo 1 > "$logs/reward.txt"
fi
