#!/usr/bin/env bash
# Installs what building, testing and the demo need on Debian 12 or 13 (14 for PostgreSQL 18): PostgreSQL 17 or the version that
# TAILSTREAM_PG_MAJOR names, TimescaleDB, pg_cron, Redis and cargo-pgrx. Safe to run again: installed packages are left alone.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly PGRX_VERSION=0.18.1
readonly PG_MAJOR=${TAILSTREAM_PG_MAJOR:-17}
readonly PG_CONFIG=/usr/lib/postgresql/$PG_MAJOR/bin/pg_config
readonly PACKAGES=(
    "postgresql-$PG_MAJOR" "postgresql-server-dev-$PG_MAJOR" "postgresql-$PG_MAJOR-timescaledb"
    "postgresql-$PG_MAJOR-cron" redis-server redis-tools
    build-essential pkg-config libssl-dev libreadline-dev zlib1g-dev libclang-dev sudo
)

say() { printf '==> %s\n' "$*"; }
die() {
    printf 'setup failed: %s\n' "$1" >&2
    [ $# -lt 2 ] || printf '  to fix it: %s\n' "$2" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "installing packages needs root" "run as root, or install sudo and allow this user to use it"
    fi
}

missing_packages() {
    local package
    for package in "${PACKAGES[@]}"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
    done
}

# The Debian release that has this version of PostgreSQL with TimescaleDB.
suite_of_major() {
    case "$PG_MAJOR" in
        17) echo trixie ;;
        18) echo forky ;;
        *) die "Debian has no packages of TimescaleDB for PostgreSQL $PG_MAJOR" "set TAILSTREAM_PG_MAJOR to 17 or 18" ;;
    esac
}

# The release that this machine's own package sources name. /etc/os-release may not tell: its package may have come from a
# newer suite as a dependency.
base_suite() {
    local suite
    suite=$(find -L /etc/apt -maxdepth 2 \( -path /etc/apt/sources.list -o -path '/etc/apt/sources.list.d/*.list' \
        -o -path '/etc/apt/sources.list.d/*.sources' \) ! -name 'tailstream-*' -exec grep -hE '^(Suites:|deb[[:space:]])' {} + |
        grep -oE '\b(bookworm|trixie|forky)\b' | head -n 1) || true
    if [ -z "$suite" ] && [ -r /etc/os-release ]; then
        # Sources may name a release by its role, such as "stable".
        # shellcheck disable=SC1091
        suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    fi
    echo "$suite"
}

# Adds a newer Debian release beside the configured ones, with so low a priority that packages come from it only when asked for.
add_suite() {
    local suite=$1 source=/etc/apt/sources.list.d/tailstream-$1.sources pin=/etc/apt/preferences.d/tailstream-$1 uri keyring
    [ -e "$source" ] && [ -e "$pin" ] && return
    uri=$(grep -rhoE '^URIs: *\S+' /etc/apt/sources.list.d/debian.sources 2>/dev/null | head -n 1 | awk '{print $2}') || true
    if [ -z "$uri" ]; then
        uri=$(grep -hE '^deb ' /etc/apt/sources.list 2>/dev/null | grep -oE '[a-z]+://\S+' | head -n 1) || true
    fi
    [ -n "$uri" ] || die "no Debian package source is configured" "add your Debian mirror to /etc/apt/sources.list.d/debian.sources"
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    say "adding Debian's suite $suite as a low-priority package source"
    # The pin first: without it, the next upgrade would take everything from the new suite.
    as_root tee "$pin" >/dev/null <<PIN
Package: *
Pin: release n=$suite
Pin-Priority: 100
PIN
    # The Release file of a testing suite is valid for a week only, and mirrors may lag; its signature is checked all the same.
    as_root tee "$source" >/dev/null <<SOURCE
Types: deb
URIs: $uri
Suites: $suite
Components: main
Signed-By: $keyring
Check-Valid-Until: no
SOURCE
}

install_packages() {
    local missing suite base target=()
    mapfile -t missing < <(missing_packages)
    [ ${#missing[@]} -gt 0 ] || return 0
    suite=$(suite_of_major)
    base=$(base_suite)
    case "$base-$suite" in
        trixie-trixie | forky-forky) ;;
        bookworm-trixie | trixie-forky) add_suite "$suite"; target=(-t "$suite") ;;
        # Debian supports an upgrade by one release at a time.
        bookworm-forky)
            TAILSTREAM_PG_MAJOR=17 dev/setup.sh
            mapfile -t missing < <(missing_packages)
            add_suite "$suite"
            target=(-t "$suite")
            ;;
        forky-trixie) die "Debian 14 has no packages of PostgreSQL $PG_MAJOR" "set TAILSTREAM_PG_MAJOR=18" ;;
        *) die "packages are known for Debian 12, 13 and 14 only" "install the packages by hand: ${missing[*]}" ;;
    esac
    say "installing ${#missing[@]} packages: ${missing[*]}"
    # A package's own default cluster would occupy a port and be none of ours.
    if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
        as_root mkdir -p /etc/postgresql-common
        echo 'create_main_cluster = false' | as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
    fi
    as_root apt-get -q update || die "apt-get update failed" "check the network and the sources in /etc/apt"
    as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -q install -y --no-install-recommends \
        -o Dpkg::Options::=--force-confold "${target[@]}" "${missing[@]}" ||
        die "apt-get could not install ${missing[*]}" "run it again by hand and read what apt says"
}

install_cargo_pgrx() {
    cargo --version >/dev/null ||
        die "cargo does not run here" "install Rust with rustup, then: rustup toolchain install $(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)"
    if [ "$(cargo pgrx --version 2>/dev/null)" != "cargo-pgrx $PGRX_VERSION" ]; then
        say "installing cargo-pgrx $PGRX_VERSION (about 3 minutes)"
        cargo install cargo-pgrx --version "$PGRX_VERSION" --locked ||
            die "cargo could not install cargo-pgrx $PGRX_VERSION" "check the network and that 'cargo --version' is 1.95 or later"
    fi
    if ! grep -qs "^pg$PG_MAJOR *= *\"$PG_CONFIG\"" "${PGRX_HOME:-$HOME/.pgrx}/config.toml"; then
        say "telling pgrx about PostgreSQL $PG_MAJOR"
        cargo pgrx init "--pg$PG_MAJOR" "$PG_CONFIG" || die "cargo pgrx init failed" "is $PG_CONFIG there?"
    fi
}

install_packages
install_cargo_pgrx
