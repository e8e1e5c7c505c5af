#!/bin/sh
# Fetch what SHA256SUMS at the source lists; end with an error unless all of it is what was published.
set -eu
cd "$REPOSITORY_FOLDER"
rclone copyto "$REPOSITORY_SOURCE/SHA256SUMS" SHA256SUMS
if ! echo "$REPOSITORY_SHA256  SHA256SUMS" | sha256sum -c -; then
    echo "SHA256SUMS at $REPOSITORY_SOURCE is not the one with the digest REPOSITORY_SHA256=$REPOSITORY_SHA256" >&2
    exit 1
fi
# Each line is a digest, two characters, and a path.
files="${TMPDIR:-/tmp}/files"
cut -c 67- SHA256SUMS > "$files"
rclone copy --files-from-raw "$files" --no-traverse "$REPOSITORY_SOURCE" .
if ! sha256sum -c SHA256SUMS; then
    echo "what came from $REPOSITORY_SOURCE is not what SHA256SUMS says" >&2
    exit 1
fi
