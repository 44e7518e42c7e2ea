# Shell functions that ./run and ./test share: everything they need is installed once. Sourced, with $here set.
# shellcheck shell=sh

say() { printf '%s\n' "$*" >&2; }
fail() {
    say "headwater: $*"
    exit 1
}

# prepare runtime|dev [PROGRAM=PACKAGE...]: make sure of system programs and of .venv.
prepare() {
    kind=$1
    shift
    need_programs mosquitto=mosquitto nginx=nginx "$@"
    case $kind in dev) lock=requirements-dev.lock ;; *) lock=requirements.lock ;; esac
    stamp=$here/.venv/.prepared-$kind
    wanted=$(cd "$here" && printf '%s\n' "$here" && sha256sum pyproject.toml "$lock")
    if [ -x "$here/.venv/bin/headwater" ] && [ -x "$here/.venv/bin/python" ] && [ -r "$stamp" ] &&
        [ "$(cat "$stamp")" = "$wanted" ]; then
        return 0
    fi
    install_python_packages
    printf '%s\n' "$wanted" >"$stamp"
}

has_program() {
    command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || [ -x "/usr/local/sbin/$1" ]
}

need_programs() {
    packages= programs=
    for pair in "$@"; do
        has_program "${pair%%=*}" || {
            packages="$packages ${pair#*=}"
            programs="$programs ${pair%%=*}"
        }
    done
    # shellcheck disable=SC2086 # a list of names
    [ -z "$packages" ] || install_debian $packages
}

install_debian() {
    command -v apt-get >/dev/null 2>&1 ||
        fail "this is no Debian: install these with your package manager, then start again: $*"
    say "Installing $* (apt) ..."
    if [ "$(id -u)" = 0 ]; then
        sh "$here/compose/install-packages.sh" "$@" || fail "apt could not install: $*"
    elif command -v sudo >/dev/null 2>&1; then
        sudo sh "$here/compose/install-packages.sh" "$@" ||
            fail "these packages are needed: as root, apt-get install $*"
    else
        fail "these packages are needed, and there is no sudo: as root, apt-get install $*"
    fi
}

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    for python in python3 /usr/bin/python3 python3.13 python3.12 python3.11; do
        if command -v "$python" >/dev/null 2>&1 && is_new_enough "$python"; then
            return 0
        fi
    done
    return 1
}

install_python_packages() {
    if ! find_python; then
        command -v python3 >/dev/null 2>&1 &&
            fail "Python 3.11 or later is needed; python3 is $(python3 -c 'import platform; print(platform.python_version())')"
        install_debian python3 python3-venv
        find_python || fail "Python 3.11 or later is needed; this Debian has an older one"
    fi
    say "Installing Python packages into .venv, this once (about a minute) ..."
    cd_back=$(pwd)
    cd "$here"
    if [ -d .venv ] && ! { [ -x .venv/bin/python ] && is_new_enough .venv/bin/python; }; then
        rm -rf .venv # its Python is gone or too old
    fi
    if command -v uv >/dev/null 2>&1 && uv --version >/dev/null 2>&1; then
        install_with_uv
    else
        install_with_pip
    fi
    # uv leaves compiling to the first start, and each start pays for it where Python may write no bytecode.
    quietly .venv/bin/python -m compileall -q -j 0 .venv/lib wire chassis series ingest devices firmware dashboard_api \
        simulators compose
    cd "$cd_back"
}

install_with_uv() {
    [ -x .venv/bin/python ] || quietly uv venv -q --python "$(command -v "$python")" .venv
    quietly uv pip install -q --python .venv/bin/python --require-hashes -r "$lock"
    quietly uv pip install -q --python .venv/bin/python --no-deps --no-build-isolation --offline -e .
}

install_with_pip() {
    "$python" -c 'import ensurepip, venv' >/dev/null 2>&1 || install_debian python3-venv
    .venv/bin/python -m pip --version >/dev/null 2>&1 || quietly "$python" -m venv .venv
    pip_options='-q --disable-pip-version-check --no-input'
    # shellcheck disable=SC2086 # a list of options
    quietly .venv/bin/python -m pip install $pip_options --require-hashes -r "$lock"
    # shellcheck disable=SC2086
    quietly .venv/bin/python -m pip install $pip_options --no-deps --no-build-isolation --no-index -e .
}

quietly() {
    "$@" || fail "this failed: $*"
}
