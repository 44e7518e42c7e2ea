# Shell functions that ./run and ./test share: everything they need is installed once. Sourced, with $here set.
# shellcheck shell=sh

# Under LC_ALL=C Python 3.11 cannot read the .pth file of a folder whose name is not ASCII.
case ${LC_ALL:-} in C | POSIX) export LC_ALL=C.UTF-8 ;; esac

say() { printf '%s\n' "$*" >&2; }
fail() {
    say "headwater: $*"
    exit 1
}

# prepare runtime|dev [PROGRAM=PACKAGE...]: make sure of system programs and of .venv.
prepare() {
    kind=$1
    shift
    case $kind in dev) lock=requirements-dev.lock ;; *) lock=requirements.lock ;; esac
    stamp=$here/.venv/.prepared-$kind
    wanted=$(cd "$here" && printf '%s\n' "$here" && sha256sum pyproject.toml "$lock")
    if is_prepared; then venv=there; else venv=missing; fi
    packages=
    add_missing_programs mosquitto=mosquitto nginx=nginx "$@"
    [ $venv = there ] || add_missing_python
    # shellcheck disable=SC2086 # a list of names
    [ -z "$packages" ] || install_debian $packages
    mend_interrupted_apt
    [ $venv = there ] || prepare_venv
}

is_prepared() {
    [ -x "$here/.venv/bin/headwater" ] && [ -r "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] &&
        "$here/.venv/bin/python" -I -c 'import wire' >/dev/null 2>&1 # not so when the machine's Python became another
}

prepare_venv() {
    for folder in "$here" "$here/.venv"; do
        [ ! -e "$folder" ] || [ -w "$folder" ] ||
            fail "$folder belongs to $(stat -c %U "$folder"), who has to start ./run first; or make a clone of your own"
    done
    exec 9>"$here/.venv.lock"
    if command -v flock >/dev/null 2>&1 && ! flock -n 9; then
        say "Another start prepares this folder; waiting for it ..."
        flock 9
    fi
    if ! is_prepared; then
        install_python_packages 9>&-
        printf '%s\n' "$wanted" >"$stamp"
    fi
    exec 9>&-
}

has_program() {
    command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || [ -x "/usr/local/sbin/$1" ]
}

add_missing_programs() {
    for pair in "$@"; do
        has_program "${pair%%=*}" || packages="$packages ${pair#*=}"
    done
}

add_missing_python() {
    if find_python; then
        has_uv || "$python" -c 'import ensurepip, venv' >/dev/null 2>&1 || packages="$packages python3-venv"
    elif command -v python3 >/dev/null 2>&1; then
        fail "Python 3.11 or later is needed; python3 is $(python3 -c 'import platform; print(platform.python_version())')"
    else
        packages="$packages python3 python3-venv"
    fi
}

install_debian() {
    command -v apt-get >/dev/null 2>&1 ||
        fail "this is no Debian: install these with your package manager, then start again: $*"
    say "Installing $* (apt) ..."
    as_root "$@" ||
        fail "these packages are needed; as root, with network: sh '$here/compose/install-packages.sh' $*"
}

# The policy that a killed installation left would hold services back for ever.
mend_interrupted_apt() {
    ! grep -qs '^# headwater:' /usr/sbin/policy-rc.d || as_root ||
        say "headwater: an earlier installation was interrupted; as root: sh '$here/compose/install-packages.sh'"
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        sh "$here/compose/install-packages.sh" "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo sh "$here/compose/install-packages.sh" "$@"
    else
        return 1
    fi
}

has_uv() {
    command -v uv >/dev/null 2>&1 && uv --version >/dev/null 2>&1
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
    find_python || fail "Python 3.11 or later is needed; this Debian has an older one"
    say "Installing Python packages into .venv, this once (about a minute) ..."
    cd_back=$(pwd)
    cd "$here"
    # Else its installation was killed half-way, or it was moved here, or its Python is gone, too old or another one.
    { [ "$(cat .venv/.whole 2>/dev/null)" = "$here" ] && is_whole_python .venv/bin/python; } || rm -rf .venv
    rm -f .venv/.whole
    if has_uv; then install_with_uv; else install_with_pip; fi
    # uv leaves compiling to the first start, and each start pays for it where Python may write no bytecode.
    quietly .venv/bin/python -m compileall -q -j 0 .venv/lib wire chassis series ingest devices firmware dashboard_api \
        simulators compose
    printf '%s\n' "$here" >.venv/.whole
    cd "$cd_back"
}

is_whole_python() {
    is_new_enough "$1" && "$1" -I -c 'import os, site, sys; sys.exit(not os.path.isdir(site.getsitepackages()[0]))'
}

install_with_uv() {
    [ -d .venv ] || quietly uv venv -q --python "$(command -v "$python")" .venv
    uv pip install -q --python .venv/bin/python --require-hashes -r "$lock" || fail_to_fetch
    quietly uv pip install -q --python .venv/bin/python --no-deps --no-build-isolation --offline -e .
}

install_with_pip() {
    [ -d .venv ] || quietly "$python" -m venv .venv
    pip_options='-q --disable-pip-version-check --no-input'
    # shellcheck disable=SC2086 # a list of options
    .venv/bin/python -m pip install $pip_options --require-hashes -r "$lock" || fail_to_fetch
    # shellcheck disable=SC2086
    quietly .venv/bin/python -m pip install $pip_options --no-deps --no-build-isolation --no-index -e .
}

fail_to_fetch() {
    fail "the Python packages could not be installed (why stands above). They come from the network, this once;" \
        "where a mirror has to be used, PIP_INDEX_URL names it (with uv: UV_DEFAULT_INDEX)"
}

quietly() {
    "$@" || fail "this failed: $*"
}

# The accessibility checker of the pages' tests (MPL-2.0): for tests only, so it is fetched and not kept here.
AXE=axe-core@4.14.1
AXE_SHA256=29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c

prepare_axe() {
    is_axe_there && return
    say "Fetching $AXE (npm), this once ..."
    (cd "$here/.venv" && quietly npm pack --silent --ignore-scripts "$AXE" >/dev/null &&
        tar -xzf axe-core-*.tgz --strip-components=1 package/axe.min.js && rm -f axe-core-*.tgz)
    is_axe_there || fail "$AXE is not what it was (sha256)"
}

is_axe_there() {
    printf '%s  %s\n' "$AXE_SHA256" "$here/.venv/axe.min.js" | sha256sum --check --status 2>/dev/null
}

# Edge nodes of other hands, for the tests of Sparkplug: pinned, each in a place of its own.
prepare_sparkplug() {
    sparkplug=$here/.venv/sparkplug
    clients=$here/tests/e2e/sparkplug
    wanted=$(cat "$clients/package-lock.json" "$clients/requirements.lock" | sha256sum)
    [ "$(cat "$sparkplug/.prepared" 2>/dev/null)" != "$wanted" ] || return 0
    say "Fetching sparkplug-client (npm) and pysparkplug (PyPI), this once ..."
    rm -rf "$sparkplug"
    mkdir -p "$sparkplug"
    cp "$clients/package.json" "$clients/package-lock.json" "$sparkplug"
    (cd "$sparkplug" && quietly npm ci --silent --ignore-scripts --no-audit --no-fund >/dev/null)
    if has_uv; then
        quietly uv venv -q --python "$here/.venv/bin/python" "$sparkplug/venv"
        uv pip install -q --python "$sparkplug/venv/bin/python" --require-hashes -r "$clients/requirements.lock" ||
            fail_to_fetch
    else
        quietly "$here/.venv/bin/python" -m venv "$sparkplug/venv"
        "$sparkplug/venv/bin/python" -m pip install -q --disable-pip-version-check --no-input --require-hashes \
            -r "$clients/requirements.lock" || fail_to_fetch
    fi
    printf '%s\n' "$wanted" >"$sparkplug/.prepared"
}
