#!/usr/bin/env bash
# Installs what building, testing and the demo need on Debian 12 or 13: PostgreSQL 17, TimescaleDB,
# pg_cron, Redis and cargo-pgrx. Safe to run again: what is there already is left alone.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly PGRX_VERSION=0.18.1
readonly PG_MAJOR=17
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

# PostgreSQL 17 and TimescaleDB are part of Debian 13. On Debian 12 that suite is added beside the
# configured ones, with a pin so low that nothing else ever comes from it.
add_trixie_suite() {
    local source=/etc/apt/sources.list.d/tailstream-trixie.sources uri keyring
    [ -e "$source" ] && return
    uri=$(grep -rhoE '^URIs: *\S+' /etc/apt/sources.list.d/debian.sources 2>/dev/null | head -n 1 | awk '{print $2}') || true
    if [ -z "$uri" ]; then
        uri=$(grep -hE '^deb ' /etc/apt/sources.list 2>/dev/null | grep -oE '[a-z]+://\S+' | head -n 1) || true
    fi
    [ -n "$uri" ] || die "no Debian package source is configured" "add your Debian mirror to /etc/apt/sources.list.d/debian.sources"
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    say "adding Debian 13 (trixie) as a low-priority package source"
    as_root tee "$source" >/dev/null <<SOURCE
Types: deb
URIs: $uri
Suites: trixie
Components: main
Signed-By: $keyring
SOURCE
    as_root tee /etc/apt/preferences.d/tailstream-trixie >/dev/null <<PIN
Package: *
Pin: release n=trixie
Pin-Priority: 100
PIN
}

install_packages() {
    local missing suite=()
    mapfile -t missing < <(missing_packages)
    [ ${#missing[@]} -gt 0 ] || return 0
    [ -r /etc/os-release ] || die "this is not Debian" "install the packages by hand: ${missing[*]}"
    # shellcheck disable=SC1091
    . /etc/os-release
    case "${VERSION_CODENAME:-}" in
        bookworm) add_trixie_suite; suite=(-t trixie) ;;
        trixie) ;;
        *) die "packages are known for Debian 12 and 13 only, this is ${PRETTY_NAME:-unknown}" \
            "install the packages by hand: ${missing[*]}" ;;
    esac
    say "installing ${#missing[@]} packages: ${missing[*]}"
    # A package's own default cluster would occupy a port and be none of ours.
    if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
        as_root mkdir -p /etc/postgresql-common
        echo 'create_main_cluster = false' | as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
    fi
    as_root apt-get -q update || die "apt-get update failed" "check the network and the sources in /etc/apt"
    as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -q install -y --no-install-recommends \
        -o Dpkg::Options::=--force-confold "${suite[@]}" "${missing[@]}" ||
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
