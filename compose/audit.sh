#!/bin/sh
# Compare both lock files with PyPI's database of known vulnerabilities; ends with 1 when there are any.
# Needs uv and PyPI itself, so ./test leaves it out. --strict: a mirror that has no such database is no pass.
set -eu
cd "$(dirname -- "$0")/.."
for lock in requirements.lock requirements-dev.lock; do
    uvx pip-audit --strict --progress-spinner off --require-hashes --disable-pip --requirement "$lock" "$@"
done
