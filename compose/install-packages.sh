#!/bin/sh
# Install Debian packages as root without letting their services start now or at the next boot.
#
#   install-packages.sh PACKAGE...
#
# Only services of packages that this call installs are held back; whatever was installed or ran before is left alone.
# A call that was killed half-way leaves its policy behind: it names what it held, and the next call ends that work.
# POLICY_RC_D exists for the tests (sudo does not pass it on).
set -eu

policy=${POLICY_RC_D:-/usr/sbin/policy-rc.d}
saved=$policy.headwater-saved
mark='# headwater: holds back the services of packages that are being installed'
if [ -n "${POLICY_RC_D:-}" ]; then lock=$POLICY_RC_D.lock; else lock=/run/headwater-packages.lock; fi
log=

state() {
    dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null || true
}

is_installed() {
    [ "$(state "$1")" = installed ]
}

is_half_done() {
    for package in $new; do
        case $(state "$package") in unpacked | half-*) return 0 ;; esac
    done
    return 1
}

restore() {
    if [ -e "$saved" ] || [ -L "$saved" ]; then
        mv -f "$saved" "$policy"
    elif grep -qF "$mark" "$policy" 2>/dev/null; then
        rm -f "$policy"
    fi
}

# The packages' scripts enable their units for the next boot whatever the policy says.
disable() {
    for package in $new; do
        case $package in mosquitto | nginx | postgresql | rabbitmq-server) ;; *) continue ;; esac
        is_installed "$package" || continue
        for command in "systemctl disable $package.service" "deb-systemd-helper disable $package.service" \
            "update-rc.d $package disable"; do
            if command -v "${command%% *}" >/dev/null 2>&1; then
                $command >/dev/null 2>&1 || true # without systemd the first may fail, without SysV init the last
            fi
        done
    done
}

# Also after ctrl-C: apt lets dpkg end what it has begun, so the packages may well be there.
finish() {
    trap '' HUP INT TERM
    disable
    is_half_done || restore # else the policy stays until the next call has ended the work
    rm -f "$log"
}

apt() {
    apt-get -y -q -o DPkg::Lock::Timeout=120 --no-install-recommends "$@" >"$log" 2>&1 9>&-
}

exec 9>"$lock"
flock 9 # two at once: the second finds the work done
new=
for package in "$@"; do
    is_installed "$package" || new="$new $package"
done
if grep -qF "$mark" "$policy" 2>/dev/null; then
    new="$new $(sed -n 's/^    \([^ ]*\) | .*) exit 101 ;;$/\1/p' "$policy" | tr '\n' ' ')"
    restore
fi
[ -n "${new# }" ] || exit 0

trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
if [ -e "$policy" ] || [ -L "$policy" ]; then
    mv "$policy" "$saved"
fi
{
    # Callers put options before the name of the service, or none; deb-systemd-invoke gives the name of the unit.
    printf '#!/bin/sh\n%s\nfor word; do\n    case "$word" in\n' "$mark"
    for package in $new; do
        printf '    %s | %s.service) exit 101 ;;\n' "$package" "$package"
    done
    printf '    esac\ndone\n[ ! -x "%s" ] || exec "%s" "$@"\nexit 0\n' "$saved" "$saved"
} >"$policy"
chmod 755 "$policy"

log=$(mktemp)
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 # a list of names
if ! apt install $new; then
    # Empty lists of packages, or an earlier dpkg that was interrupted: apt asks for exactly this.
    { dpkg --configure -a && apt-get update -q; } >"$log" 2>&1 9>&- || true
    apt install $new || {
        { grep '^E: ' "$log" || cat "$log"; } | tail -n 3 >&2
        exit 1
    }
fi
