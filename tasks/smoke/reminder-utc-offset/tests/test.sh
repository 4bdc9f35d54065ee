#!/bin/bash
# Grades the work directory: 1 in reward.txt only when every test beside this script ran and passed.
# TESTBED and VERIFIER_DIR exist so that the same script can grade a copy outside a container.
set -u
tests="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
export TESTBED="${TESTBED:-/testbed}"
logs="${VERIFIER_DIR:-/logs/verifier}"
mkdir -p "$logs" && chmod 700 "$logs" && cd "$tests" || exit 1

# The code under test is imported by the tests, so it runs as nobody: it can't write the reward, change the
# tests or kill this script. Without root there is nobody to become.
as_nobody=()
if [ "$(id -u)" -eq 0 ] && command -v setpriv > /dev/null; then
    as_nobody=(setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs)
    chmod -R a+rX "$tests" "$TESTBED"
    if ! "${as_nobody[@]}" python3 -I -c 'import os, sys; [os.listdir(p) for p in sys.argv[1:]]' "$tests" "$TESTBED"
    then
        rm -f "$logs/reward.txt"
        echo "no verdict: the user nobody, as whom the tests run, can't use $tests, $TESTBED or python3" >&2
        exit 1
    fi
fi
echo 0 > "$logs/reward.txt"

# -I: nothing in the work directory is imported by accident (no current directory, no PYTHON* variables,
# no user site); the tests append TESTBED to sys.path, behind the standard library.
timeout -k 5 60 "${as_nobody[@]}" python3 -I -B -m unittest discover -v -s "$tests" -t "$tests" -p 'test_*.py' \
    2> "$logs/unittest.txt" < /dev/null
status=$?
cat "$logs/unittest.txt"

# The number of tests and the verdict line are asked for besides the exit code: code under test that ends the
# interpreter early, or skips, leaves no bare "OK".
count=$(cat "$tests"/test_*.py | grep -c '^    def test_')
if [ "$status" -eq 0 ] && grep -qE "^Ran $count tests? in " "$logs/unittest.txt" \
    && grep -qx 'OK' "$logs/unittest.txt"; then
    echo 1 > "$logs/reward.txt"
fi
