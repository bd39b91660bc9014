# Sourced by install, uninstall, run and test. Plain POSIX sh; nothing but Debian's essential packages and apt.
# shellcheck shell=sh disable=SC2034

umask 022
unset PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONDONTWRITEBYTECODE PYTHONUSERBASE
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

DEFAULT_PREFIX=/opt/durward
DEFAULT_CONFIG=/etc/durward
PYTHON=/usr/bin/python3
PACKAGES="python3 python3-venv python3-dev gcc libc6-dev libcap-dev libpam-runtime libpam-modules passwd ca-certificates tzdata"

say() { printf '%s\n' "$*"; }
warn() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() {
    warn "$*"
    exit 1
}

need_root() {
    [ "$(id -u)" -eq 0 ] || die "it must run as root: sudo $0"
}

# the value of an option that needs one
value() {
    if [ $# -lt 2 ] || [ -z "$2" ]; then die "$1 needs a value"; fi
    printf '%s' "$2"
}

# Install those of the named packages that are missing, and say so.
apt_install() {
    apt_missing=
    for apt_package in "$@"; do
        # shellcheck disable=SC2016  # the format is dpkg's
        apt_status=$(dpkg-query -W -f='${db:Status-Status}' "$apt_package" 2>/dev/null || true)
        [ "$apt_status" = installed ] || apt_missing="$apt_missing $apt_package"
    done
    [ -n "$apt_missing" ] || return 0
    command -v apt-get >/dev/null || die "missing:$apt_missing; without apt they cannot be installed here"
    say "installing by apt:$apt_missing"
    apt_log=$(mktemp)
    export DEBIAN_FRONTEND=noninteractive
    apt-get -q update </dev/null >"$apt_log" 2>&1 || warn "apt-get update failed; going on with what apt knows"
    # shellcheck disable=SC2086  # a list of words
    if ! apt-get -q -y --no-install-recommends install $apt_missing </dev/null >>"$apt_log" 2>&1; then
        cat "$apt_log" >&2
        rm -f "$apt_log"
        die "apt-get could not install:$apt_missing"
    fi
    rm -f "$apt_log"
    APT_INSTALLED="${APT_INSTALLED:-}$apt_missing"
}

# The absolute path that $2 means, $1 in messages: without blanks and whatever else lists, sed and #! lines take apart.
plain_path() {
    plain=$(readlink -m -- "$2") || plain=''
    case $plain in
    '' | / | *[!A-Za-z0-9/._-]*) die "$1 must be a plain absolute path, not '$2'" ;;
    esac
    printf '%s' "$plain"
}

# What root runs and believes must not be replaceable by anybody else.
check_owner() {
    owner_uid=$(stat -L -c %u "$1")
    owner_mode=$(stat -L -c %a "$1")
    [ "$owner_uid" -eq 0 ] || die "$1 belongs to uid $owner_uid; it, and everything above it, must be root's"
    [ $((0$owner_mode & 022)) -eq 0 ] || die "$1 (mode $owner_mode) can be written by others than root"
}

# Everything above the absolute path $1 is root's alone, and does not keep the users of services from reading it.
check_parents() {
    case $1 in
    /*) parent=$1 ;;
    *) die "not an absolute path: '$1'" ;;
    esac
    while [ "$parent" != / ]; do
        parent=$(dirname "$parent")
        [ -e "$parent" ] || continue
        check_owner "$parent"
        [ $((0$(stat -L -c %a "$parent") & 1)) -eq 1 ] ||
            die "$parent is closed to other users, who must be able to read $1"
    done
}

# Before anything in PREFIX is run or believed.
check_prefix() {
    check_parents "$PREFIX"
    for checked in "$PREFIX" "$PREFIX/.durward"; do
        [ ! -e "$checked" ] || check_owner "$checked"
    done
}

# What was made outside of PREFIX is known only from PREFIX/.durward, so that goes last, or stays.
empty_prefix() {
    find "$PREFIX" -mindepth 1 -maxdepth 1 ! -name .durward -exec rm -rf {} +
}

# One hash over the names and contents of what is installed from the checkout $1.
source_hash() (
    cd "$1" || exit
    find pyproject.toml README.md LICENSE rootd policy userapi -type f ! -name '*.pyc' -exec sha256sum {} + |
        LC_ALL=C sort | sha256sum | cut -d' ' -f1
)

# A daemon with the configuration $1 that runs from PREFIX becomes what is installed now, as root asks it on root.sock.
# Where it cannot, it goes on as it is, and that is said.
upgrade_running() {
    socket=$(path_of "$1" run)/root.sock
    if [ ! -S "$socket" ] || [ -z "$(running_from "$PREFIX")" ]; then return 0; fi
    say "a daemon runs from $PREFIX: it is replaced by what is installed now, and its services go on"
    "$PREFIX/bin/durward" --root "$socket" upgrade ||
        warn "the daemon was not replaced; again: $PREFIX/bin/durward --root $socket upgrade, or stop and start it"
}

# The pids of what runs from PREFIX $1.
running_from() {
    for process in /proc/[0-9]*; do
        if tr '\0' '\n' 2>/dev/null <"$process/cmdline" | grep -qF "$1/bin/"; then printf ' %s' "${process#/proc/}"; fi
    done
}

recorded() { grep -qsxF "$*" "$PREFIX/.durward/made"; }

# Note in PREFIX what was made outside of it, so that uninstall can take it back.
record() {
    recorded "$*" || printf '%s\n' "$*" >>"$PREFIX/.durward/made"
}

# An account of the system, with a group of the same name; recorded only when it is made here.
system_account() {
    getent passwd "$1" >/dev/null && return 0
    useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin \
        --comment "$2" "$1" || die "the account $1 cannot be made"
    record account "$1"
}

# The folders of the configuration $1 that stay without --purge: FOLDER:OWNER:GROUP, of accounts how they end.
kept_of() {
    kept_state=$(path_of "$1" state)
    printf '%s\n' "$(path_of "$1" log):-log:-sup" "$kept_state/log:-log:-log" "$kept_state/choices:-log:-sup" \
        "$kept_state/auth:-auth:-auth"
}

# The path that the configuration $1 names in [paths] as $2, or the default of rootd/config/keys.py.
path_of() {
    case $2 in
    run) path=/run/durward ;;
    log) path=/var/log/durward ;;
    state) path=/var/lib/durward ;;
    esac
    blank='[[:blank:]]*' quote="[\"']"
    named=$(sed -n "s|^$blank$2$blank=$blank$quote\(/[^\"']*[^\"'/]\)/*$quote.*|\1|p" "$1/durward.toml" 2>/dev/null |
        head -n 1)
    printf '%s\n' "${named:-$path}"
}
