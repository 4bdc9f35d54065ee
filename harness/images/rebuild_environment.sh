#!/bin/sh
# One environment of a rebuilt suite: exact packages for one Python, which is then the one that any shell finds.
# Started by rebuilt.py; beside it lie uv and requirements.lock.
#
#   rebuild_environment.sh PYTHON     the path of the interpreter
set -eu

python=$1
here=$(dirname "$0")

for name in python python3; do ln -sf "$python" "/usr/local/bin/$name"; done
"$python" -c 'import bz2, ctypes, lzma, sqlite3, ssl, zlib'

if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 8))'; then
    # Debian patches its own Python to install below /usr/local, and the packages of the system stay out of the way.
    UV_NO_CACHE=1 UV_LINK_MODE=copy UV_NO_PROGRESS=1 UV_NO_CONFIG=1 UV_PYTHON_DOWNLOADS=never \
        "$here/uv" pip install --python "$python" --system --break-system-packages --no-deps --require-hashes \
        --compile-bytecode -r "$here/requirements.lock"
else
    # Too old for uv; its pip reads the same file, after it has made itself one that knows today's wheels.
    export PIP_CERT="${SSL_CERT_FILE:-}"
    index=${UV_DEFAULT_INDEX:-${UV_INDEX_URL:-}}
    [ -z "$index" ] || export PIP_INDEX_URL="$index"
    export XDG_CACHE_HOME=/tmp/cache PIP_DISABLE_PIP_VERSION_CHECK=1
    awk '/^pip==/{on=1} on{print} on&&!/\\$/{exit}' "$here/requirements.lock" >"$here/pip.lock"
    "$python" -m pip install --no-deps --require-hashes -r "$here/pip.lock"
    "$python" -m pip install --no-deps --require-hashes -r "$here/requirements.lock"
fi
for name in pip pytest tox; do
    [ ! -x "$(dirname "$python")/$name" ] || ln -sf "$(dirname "$python")/$name" "/usr/local/bin/$name"
done
rm -rf /harness
