#!/bin/sh
# Write both lock files anew from pyproject.toml (needs uv). Other options are passed on, e.g. --upgrade.
# The build backend is locked too, so that the editable install needs neither network nor build isolation.
set -eu
cd "$(dirname -- "$0")/.."

lock() {
    output=$1
    shift
    printf 'hatchling>=1.27\neditables>=0.5\n' |
        uv pip compile pyproject.toml - --generate-hashes --universal --python-version 3.11 \
            --no-emit-index-url --no-header --quiet --output-file "$output" "$@"
}

lock requirements.lock "$@"
lock requirements-dev.lock --extra dev --extra postgres --extra oidc --extra s3 "$@"
