# What the user gets to read.

usage() {
    echo "usage: log-archive [-k KEEP] [-d STAMP] LOGS ARCHIVE" >&2
    exit 2
}

# fail CODE MESSAGE
fail() {
    echo "log-archive: $2" >&2
    exit "$1"
}
