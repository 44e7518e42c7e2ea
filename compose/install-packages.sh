#!/bin/sh
# Install Debian packages as root without letting their services start now or at the next boot.
#
#   install-packages.sh PACKAGE...
#
# Only services of packages that this call installs are held back; whatever was installed or ran before is left alone.
# POLICY_RC_D exists for the tests (sudo does not pass it on).
set -eu

policy=${POLICY_RC_D:-/usr/sbin/policy-rc.d}
saved=$policy.headwater-saved
mark='# headwater: holds back the services of packages that are being installed'

restore() {
    if [ -e "$saved" ] || [ -L "$saved" ]; then
        mv -f "$saved" "$policy"
    elif grep -qF "$mark" "$policy" 2>/dev/null; then
        rm -f "$policy"
    fi
}

is_installed() {
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

new=
for package in "$@"; do
    is_installed "$package" || new="$new $package"
done
[ -n "$new" ] || exit 0

restore # what a killed earlier call left
trap restore EXIT
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
if ! apt-get install -y -q --no-install-recommends $new >"$log" 2>&1; then
    if ! { apt-get update -q && apt-get install -y -q --no-install-recommends $new; } >"$log" 2>&1; then
        cat "$log" >&2
        rm -f "$log"
        exit 1
    fi
fi
rm -f "$log"

# The packages' scripts enable their units for the next boot whatever the policy says.
for package in $new; do
    case $package in mosquitto | nginx | postgresql) ;; *) continue ;; esac
    for disable in "systemctl disable $package.service" "deb-systemd-helper disable $package.service" \
        "update-rc.d $package disable"; do
        if command -v "${disable%% *}" >/dev/null 2>&1; then
            $disable >/dev/null 2>&1 || true # without systemd the first may fail, without SysV init the last
        fi
    done
done
