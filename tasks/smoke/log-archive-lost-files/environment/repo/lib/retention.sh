# Which archives have to go.

# remove_old NAME ARCHIVE KEEP: of NAME's archives, leave the latest KEEP.
remove_old() {
    local old
    for old in $(ls "$2" | grep "^$1-.*\.log\.gz$" | sort -r | tail -n "+$(($3 + 1))"); do
        rm -- "$2/$old" && echo "removed $old"
    done
}
