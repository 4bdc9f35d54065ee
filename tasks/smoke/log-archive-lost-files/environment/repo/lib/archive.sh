# Moving one log into the archive.

# archive_log PATH ARCHIVE STAMP
archive_log() {
    local name target
    name="$(basename "$1" .log)"
    target="$2/$name-$3.log.gz"
    if ! gzip -c -- "$1" > "$target.part"; then
        rm -f -- "$target.part"
        echo "log-archive: cannot archive $1" >&2
        return 1
    fi
    mv -- "$target.part" "$target" && rm -- "$1" && echo "archived $name-$3.log.gz"
}
