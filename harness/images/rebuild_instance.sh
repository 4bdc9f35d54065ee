#!/bin/sh
# The repository of one instance in /testbed, installed in place. Started by rebuilt.py in a container of its
# environment, without a network; beside it lie source.tar (its one top folder is the repository) and, for a release
# that has the fix already, fix.patch and tests.patch, which are taken off it.
#
#   rebuild_instance.sh exact|archive [fuzz]
set -eu

kind=$1
here=$(dirname "$0")

mkdir /testbed
tar -xf "$here/source.tar" --strip-components=1 --no-same-owner -C /testbed
cd /testbed
if [ "$kind" = archive ]; then
    # What a release has and its repository does not.
    rm -rf PKG-INFO ./*.egg-info
    if [ -f "$here/fix.patch" ]; then
        # Tests must come off to the letter: a fuzzy one may leave a file that passes before the fix.
        git apply -R --whitespace=nowarn "$here/tests.patch"
        if [ "${2:-}" = fuzz ]; then
            patch -R --batch --fuzz=3 -p1 -i "$here/fix.patch"
            find . \( -name '*.orig' -o -name '*.rej' \) -delete
        else
            git apply -R --whitespace=nowarn "$here/fix.patch"
        fi
        # Texts that tell what the release changed, the fix among it.
        rm -rf CHANGES CHANGES.rst docs/releases
    fi
fi
# Debian's Python knows by its own distutils where local packages go; setuptools' copy of it does not.
SETUPTOOLS_USE_DISTUTILS=stdlib PIP_ROOT_USER_ACTION=ignore python -m pip install --no-index --no-deps --no-build-isolation --disable-pip-version-check --no-cache-dir -e .
find . -name __pycache__ -prune -exec rm -rf {} +
rm -rf /harness /root/.cache
