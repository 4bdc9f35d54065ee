#!/bin/sh
# Sets everything up from a bare Debian or Ubuntu: system packages (as root), Docker, the virtual environment,
# the weights of the embedded default model. Safe to run again; what is there already is left alone.
set -eu
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    for name in /usr/bin/python3 python3 python3.13 python3.12 python3.11; do
        if command -v "$name" >/dev/null 2>&1 && new_enough "$name"; then
            command -v "$name"
            return
        fi
    done
}

docker_answers() { [ -S "${DOCKER_SOCKET:=/var/run/docker.sock}" ] && python_docker_ping; }

# Any HTTP client will do, and Python is there.
python_docker_ping() {
    "$python" - "$DOCKER_SOCKET" <<'PING'
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(5)
try:
    s.connect(sys.argv[1])
    s.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
    sys.exit(b"OK" not in s.recv(4096))
except OSError as error:
    sys.exit(2 if isinstance(error, PermissionError) else 1)
PING
}

# --- system packages -------------------------------------------------------------------------------------
python=$(find_python)
missing=""
[ -n "$python" ] || missing="$missing python3"
{ [ -n "$python" ] && "$python" -c 'import ensurepip, venv' 2>/dev/null; } || missing="$missing python3-venv"
command -v git >/dev/null 2>&1 || missing="$missing git"
command -v mmdebstrap >/dev/null 2>&1 || missing="$missing mmdebstrap"
if [ -z "${DOCKER_HOST:-}" ] && ! command -v dockerd >/dev/null 2>&1 && [ ! -S /var/run/docker.sock ]; then
    missing="$missing docker.io"
fi
if [ -n "$missing" ]; then
    if [ "$(id -u)" -ne 0 ]; then
        # mmdebstrap is needed only where no registry answers; the harness says so then.
        [ "$missing" = " mmdebstrap" ] || fail "these packages are missing:$missing
setup: install them with: sudo apt-get install$missing"
    else
        command -v apt-get >/dev/null 2>&1 || fail "these packages are missing, and there is no apt-get:$missing"
        say "installing$missing"
        log=$(mktemp)
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $missing; } >"$log" 2>&1 ||
            { tail -n 5 "$log" >&2; fail "apt-get could not install$missing (all of it: $log)"; }
        rm -f "$log"
    fi
    python=$(find_python)
    [ -n "$python" ] || fail "this system's Python is older than 3.11: install a newer one and run this again"
fi

# --- Docker ----------------------------------------------------------------------------------------------
if [ -z "${DOCKER_HOST:-}" ] && ! docker_answers; then
    [ "$(id -u)" -eq 0 ] || fail "Docker does not answer, or this user may not use it:
setup: sudo systemctl start docker && sudo usermod -aG docker $(id -un)   (then log in again)"
    say "starting Docker"
    if [ -d /run/systemd/system ]; then
        systemctl start docker
    else
        # No service manager (a container, a minimal virtual machine): the daemon is started by hand.
        setsid dockerd >/var/log/dockerd.log 2>&1 </dev/null &
    fi
    tries=0
    until docker_answers; do
        tries=$((tries + 1))
        [ "$tries" -lt 60 ] || fail "Docker did not start within 60 s: see /var/log/dockerd.log or journalctl -u docker"
        sleep 1
    done
fi

# --- the virtual environment -----------------------------------------------------------------------------
if [ ! -x .venv/bin/python ] || ! new_enough .venv/bin/python; then
    say "making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
fi
stamp=.venv/requirements.installed
if ! cmp -s requirements.lock "$stamp" || [ ! -x .venv/bin/harness ]; then
    say "installing the locked requirements"
    # uv installs the rest, and is itself installed by its hash out of the same lock.
    awk '/^uv==/{on=1} on{print} on&&!/\\$/{exit}' requirements.lock >.venv/uv.lock
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv.lock
    UV_PYTHON_DOWNLOADS=never .venv/bin/uv pip install --quiet --compile-bytecode --python .venv/bin/python \
        --require-hashes -r requirements.lock
    .venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation -e .
    cp requirements.lock "$stamp"
fi

# --- the embedded default model --------------------------------------------------------------------------
.venv/bin/harness models pull llamacpp/smollm2:135m
