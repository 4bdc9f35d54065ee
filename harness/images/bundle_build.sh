#!/bin/sh
# Builds an agent's bundle: a Python that runs in any Linux image, and a virtual environment on it.
# Started by bundle.py in a throw-away Debian container with the bundle's volume at /opt/agent.
#
#   bundle_build.sh PYTHON_VERSION DEBIAN_PYTHON      e.g. 3.13 3.13; the second is "" where this Debian's does
#                                                     not fit
#
# Beside it lie uv, bundle_build.lock (what packages are built with that are there as a source alone) and, where the
# agent has them: requirements.lock, source.tar (a checkout below one top folder) and wheels/, which then stands for
# the package index. Lines that start with "harness: " are read by bundle.py; everything else is log.
set -eu

here=$(dirname "$0")
uv=$here/uv
home=/opt/agent
wanted=$1
debian=$2

export UV_CACHE_DIR=/tmp/uv-cache UV_LINK_MODE=copy UV_NO_PROGRESS=1 UV_NO_CONFIG=1 UV_PYTHON_PREFERENCE=only-managed
export UV_PYTHON_INSTALL_DIR=/tmp/uv-python

# python-build-standalone: made for this, needs no more than glibc 2.17 of the image it runs in.
# One try, given up after seconds: where its host is blocked the next way needs only Debian's packages.
standalone() {
    UV_HTTP_CONNECT_TIMEOUT=5 UV_HTTP_RETRIES=0 "$uv" python install "$wanted" --no-bin || return 1
    mv "$UV_PYTHON_INSTALL_DIR"/cpython-"$wanted".*-* "$home/python"
}

# Debian's own Python, with the C library and everything else it links, and its own loader. Programs that the agent
# starts are not touched by it: the path to the libraries stands in the python binary, not in the environment.
relocated() {
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -qq -o Dpkg::Use-Pty=0 --no-install-recommends "python$debian" patchelf libstdc++6
    name=python$debian
    lib=$home/python/lib
    mkdir -p "$home/python/bin" "$lib"
    cp "/usr/bin/$name" "$home/python/bin/$name"
    ln -s "$name" "$home/python/bin/python3"
    # Never used by an agent, and a third of the size.
    tar -C /usr/lib --exclude=__pycache__ --exclude=test --exclude=idlelib --exclude=tkinter --exclude=turtledemo \
        --exclude='config-*' --exclude=ensurepip -chf - "$name" | tar -C "$lib" -xf -

    # What the interpreter and its modules link, the libraries that wheels may take for granted, and the parts that
    # the C library loads by name.
    {
        ldd "/usr/bin/$name" "$lib/$name"/lib-dynload/*.so | awk '$2 == "=>" && $3 ~ /^\// { print $3 }'
        find /usr/lib/*-linux-gnu -maxdepth 1 \( \
            -name 'libstdc++.so.6' -o -name 'libgcc_s.so.1' -o -name 'libpthread.so.0' -o -name 'libdl.so.2' \
            -o -name 'librt.so.1' -o -name 'libutil.so.1' -o -name 'libresolv.so.2' -o -name 'libm.so.6' \
            -o -name 'libnss_files.so.2' -o -name 'libnss_dns.so.2' -o -name 'libanl.so.1' \)
    } | sort -u | while read -r library; do cp -L "$library" "$lib/"; done

    # RPATH, not RUNPATH: it serves the extension modules' own dependencies too. A wheel's library with a RUNPATH of
    # its own is not served by it and would bring the image's libpthread to this libc; what is loaded already is not
    # searched again, so these stubs are loaded at the start. Three calls, in this order: patchelf up to 0.18 writes
    # a broken binary when one call does two of them, and can't add a library once the interpreter's path has grown.
    binary=$home/python/bin/$name
    loader=$(patchelf --print-interpreter "$binary")
    cp -L "$loader" "$lib/"
    patchelf --add-needed libpthread.so.0 --add-needed libdl.so.2 --add-needed librt.so.1 --add-needed libutil.so.1 \
        "$binary"
    patchelf --force-rpath --set-rpath "$lib" "$binary"
    patchelf --set-interpreter "$lib/$(basename "$loader")" "$binary"

    # In this image the same libraries would also be found outside, so that a missing one shows only elsewhere.
    "$binary" - "$home" <<'END'
import importlib, pathlib, sys, sysconfig

for module in pathlib.Path(sysconfig.get_path("stdlib"), "lib-dynload").glob("*.so"):
    importlib.import_module(module.name.split(".")[0])
loaded = {line.split()[-1] for line in open("/proc/self/maps") if ".so" in line}
foreign = sorted(path for path in loaded if not path.startswith(sys.argv[1]))
sys.exit(f"not relocated: {foreign}" if foreign else 0)
END
}

echo "harness: fetching Python $wanted"
if standalone; then
    echo "harness: runtime python-build-standalone"
elif [ -n "$debian" ]; then
    echo "harness: taking Debian's Python $debian, python-build-standalone can't be reached"
    relocated
    echo "harness: runtime debian"
else
    echo "harness: giving up on Python $wanted"
    echo "python-build-standalone can't be reached, and Debian has no Python $wanted" >&2
    exit 1
fi

python=$(echo "$home"/python/bin/python3.[0-9]*[0-9])
"$uv" venv --quiet --python "$python" "$home/venv"

if [ -f "$here/requirements.lock" ]; then
    echo "harness: installing packages"
    set --
    [ ! -d "$here/wheels" ] || set -- --no-index --find-links "$here/wheels"
    # With the image's own C library, a wheel for this Debian's might be too new.
    [ -e "$home/python/lib/libc.so.6" ] || set -- "$@" --python-platform "$(uname -m)-manylinux_2_28"
    set -- --quiet --python "$home/venv" --require-hashes "$@"
    if "$uv" pip install --dry-run --no-build "$@" -r "$here/requirements.lock" 2> /dev/null; then
        isolation=--no-build
    else
        # A source asks for what it is built with, without a hash: it gets what is here, with one, and nothing else.
        echo "harness: fetching what packages are built with"
        "$uv" pip install --target /tmp/build-tools --no-build "$@" -r "$here/bundle_build.lock"
        export PYTHONPATH=/tmp/build-tools
        isolation=--no-build-isolation
    fi
    "$uv" pip install $isolation --compile-bytecode "$@" -r "$here/requirements.lock"
    unset PYTHONPATH
fi
if [ -f "$here/source.tar" ]; then
    # As an editable install has it, for frameworks that look for their files beside their package.
    echo "harness: unpacking the checkout"
    mkdir "$home/source"
    tar -xf "$here/source.tar" -C "$home/source" --strip-components=1 --no-same-owner
    echo "$home/source" > "$(echo "$home"/venv/lib/python3.*/site-packages)/source.pth"
fi
echo "harness: compiling bytecode"
# What does not compile could not be imported either (test data, mostly).
"$home/venv/bin/python" -m compileall -q -j 0 "$home/python/lib" || true
[ ! -d "$home/source" ] || "$home/venv/bin/python" -m compileall -q -j 0 "$home/source" || true

"$home/venv/bin/python" - "$home" "$(du -sb "$home" | cut -f 1)" <<'END'
import hashlib, importlib.metadata, json, os, pathlib, platform, sys

home = pathlib.Path(sys.argv[1])
digest = hashlib.sha256()
for path in sorted(home.rglob("*")):
    if path.suffix == ".pyc" or path.is_dir() and not path.is_symlink():
        continue  # bytecode carries the time at which its source was unpacked
    content = os.fsencode(os.readlink(path)) if path.is_symlink() else path.read_bytes()
    digest.update(os.fsencode(path.relative_to(home)) + b"\0" + hashlib.sha256(content).digest())
packages = {each.metadata["Name"]: each.version for each in importlib.metadata.distributions()}
facts = {"python_version": platform.python_version(), "size_bytes": int(sys.argv[2]), "packages": packages,
         "digest": digest.hexdigest()}
print("harness: built", json.dumps(facts))
END
