#!/bin/sh
# Installs Ollama from its Go module, for machines where its own installer can't be downloaded. Debian, Ubuntu; root.
#   scripts/install-ollama.sh [--with-smollm2] [PREFIX]     PREFIX defaults to /usr/local
# --with-smollm2 also imports the SmolLM2 file as smollm2:135m into the server that runs at OLLAMA_HOST.
# The binary is made for this machine's processor and is not to be copied to another.
set -eu

version=0.13.5  # the last line that needs no cmake and downloads nothing while it is built
go_version=1.24.11  # fetched where Go is missing or older than the 1.24 that Ollama needs
miniaudio=github.com/gen2brain/malgo@v0.11.23

checkout=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
with_smollm2=no
prefix=/usr/local
for argument in "$@"; do
    case $argument in
        --with-smollm2) with_smollm2=yes ;;
        -*) echo "usage: $0 [--with-smollm2] [PREFIX]" >&2; exit 2 ;;
        *) prefix=$argument ;;
    esac
done

install_packages() {
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

new_go() {
    case $(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null) in
        go1.[0-9] | go1.[0-9].* | go1.1[0-9]* | go1.2[0-3]*) return 1 ;;
        go[1-9]*) return 0 ;;
        *) return 1 ;;
    esac
}

# Debian 12 has Go 1.19, which does not know how to replace itself. It can fetch a newer one all the same, as the
# module from which newer ones do that, and checks its checksum like any module's.
find_go() {
    new_go && return
    command -v go >/dev/null || install_packages golang-go ca-certificates
    new_go && return
    toolchain=golang.org/toolchain@v0.0.1-go$go_version.linux-$(go env GOARCH)
    echo "$(go env GOVERSION) is older than 1.24: fetching $toolchain"
    mkdir "$build/toolchain"
    cd "$build/toolchain"
    go mod init build.local/toolchain >/dev/null 2>&1
    folder=$(go mod download -json "$toolchain" | sed -n 's/^[[:space:]]*"Dir": "\(.*\)",*$/\1/p')
    if [ -z "$folder" ]; then
        echo "Ollama $version needs Go 1.24 or newer, and $toolchain can't be fetched:" \
            "install a newer Go by hand and put it first in PATH" >&2
        exit 1
    fi
    # A module's files are neither writable nor executable.
    cp -R "$folder" "$build/go"
    chmod -R u+w "$build/go"
    chmod +x "$build"/go/bin/* "$build"/go/pkg/tool/*/*
    unset GOROOT
    export GOTOOLCHAIN=local PATH="$build/go/bin:$PATH"
}

install_ollama() {
    build=$(mktemp -d)
    trap 'rm -rf "$build"' EXIT
    find_go
    missing=
    for package in g++ nlohmann-json3-dev libstb-dev; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
    done
    # shellcheck disable=SC2086  # a list of names
    [ -z "$missing" ] || install_packages $missing

    # Go leaves folders named vendor/ out of a module's archive, and Ollama keeps three C++ libraries in such
    # folders: two come from Debian, miniaudio from a Go module that carries the same header.
    mkdir -p "$build/include/miniaudio" "$build/module"
    cd "$build/module"
    go mod init build.local/headers >/dev/null 2>&1
    folder=$(go mod download -json "$miniaudio" | sed -n 's/^[[:space:]]*"Dir": "\(.*\)",*$/\1/p')
    cp "$folder/miniaudio.h" "$build/include/miniaudio/miniaudio.h"

    # Without -march the processor's vector instructions stay unused: 38 instead of 350 tokens/s of prefill.
    # Without OpenMP the threads spin at each barrier: one busy neighbour on two cores, and decoding falls
    # from 100 to 8 tokens/s.
    # Go takes the files of named folders only, and ggml's for AMX are not among them: a processor with AMX would
    # have the rest ask for them.
    flags='-O3 -march=native -U__AMX_INT8__ -fopenmp -DGGML_USE_OPENMP'
    CPATH=$build/include CGO_ENABLED=1 GOBIN=$build/bin \
    CGO_CFLAGS=$flags CGO_CXXFLAGS=$flags \
    CGO_LDFLAGS='-fopenmp' \
        go install -ldflags "-X=github.com/ollama/ollama/version.Version=$version" \
        "github.com/ollama/ollama@v$version"
    install -D -m 755 "$build/bin/ollama" "$prefix/bin/ollama"
    cd /
}

import_smollm2() {
    python=$checkout/.venv/bin/python
    [ -x "$python" ] || python=python3
    weights=$(cd "$checkout" && "$python" -m harness.engines.weights smollm2:135m)
    modelfile=$(mktemp)
    # Ollama recognises the chat template in the file by itself (ChatML, with its stop words).
    echo "FROM $weights" > "$modelfile"
    "$prefix/bin/ollama" create smollm2:135m -f "$modelfile" >/dev/null 2>&1 || {
        status=$?
        rm -f "$modelfile"
        echo "ollama create failed; does a server run at ${OLLAMA_HOST:-127.0.0.1:11434}? (ollama serve)" >&2
        exit $status
    }
    rm -f "$modelfile"
    echo "smollm2:135m is in the server at ${OLLAMA_HOST:-127.0.0.1:11434}"
}

# Where a server answers, --version tells the server's: so ask where none can.
if OLLAMA_HOST=127.0.0.1:9 "$prefix/bin/ollama" --version 2>&1 | grep -q "client version is $version\$"; then
    echo "Ollama $version is in $prefix/bin"
else
    install_ollama
    echo "Ollama $version installed in $prefix/bin"
fi
[ "$with_smollm2" = no ] || import_smollm2
