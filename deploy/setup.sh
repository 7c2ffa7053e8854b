#!/usr/bin/env bash
# Installs what Skep needs to be built, shown and tested on Debian or Ubuntu, and only what is missing.
# Says what it is going to do before it does it.
#
#   deploy/setup.sh [--for build|bench|bench-pods|demo|test|lint|ci] [--check]
#
#   --for build  build tools and Rust
#   --for bench  the same and sqlite3
#   --for bench-pods
#                the same, Docker and a static busybox
#   --for demo   build tools, Rust, Docker, kubectl, sqlite3, mosquitto's clients          (default)
#   --for test   the same, the mosquitto broker, openssl, a static busybox, Podman and a Chromium
#   --for lint   build tools, Rust with rustfmt and clippy, shellcheck, cargo-deny
#   --for ci     lint and test
#   --check      install nothing; list what is missing
#
# SKEP_SETUP=no does the same as --check: no installation, whoever calls.
# Chromium is the one thing that may stay missing (Ubuntu has it as a snap only): tests that need it then say that they
# were skipped, or fail where CI=true.
# Exit codes: 0 everything is there; 1 something is missing or could not be installed; 64 usage.
set -euo pipefail

# What cannot be read from the workspace itself.
readonly KUBECTL_MINOR_MIN=20          # Debian 12's kubernetes-client; older ones were not tried
readonly KUBECTL_VERSION=v1.33.5       # fetched only where the distribution has no kubernetes-client
readonly CARGO_DENY_VERSION=0.20.2
readonly DOCKER_WAIT_SECS=30

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache="${HOME:-/root}/.cache/skep"
scope=demo
install=yes
[ "${SKEP_SETUP:-yes}" != no ] || install=no

say()  { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

while [ $# -gt 0 ]; do
    case $1 in
        --for) [ $# -ge 2 ] || { echo 'setup: --for needs one of build, bench, bench-pods, demo, test, lint, ci' >&2; exit 64; }
               scope=$2; shift 2 ;;
        --check) install=no; shift ;;
        -h|--help) sed -n '2,21s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
        *) echo "setup: unknown argument $1; see $0 --help" >&2; exit 64 ;;
    esac
done
case $scope in
    build|bench|bench-pods) want_run=no want_test=no want_lint=no ;;
    demo) want_run=yes want_test=no want_lint=no ;;
    test) want_run=yes want_test=yes want_lint=no ;;
    lint) want_run=no want_test=no want_lint=yes ;;
    ci)   want_run=yes want_test=yes want_lint=yes ;;
    *) echo "setup: --for $scope is unknown; one of build, bench, bench-pods, demo, test, lint, ci" >&2; exit 64 ;;
esac

# cargo installed by rustup is not on the PATH of a fresh shell; Debian's own cargo would be too old.
PATH="${CARGO_HOME:-${HOME:-/root}/.cargo}/bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin"

# ---- what is missing -------------------------------------------------------------------------------------------------

packages=()      # Debian packages to install
missing=()       # the same and the rest, in words
need() { # need PROGRAM PACKAGE: a program that a Debian package brings
    have "$1" || { packages+=("$2"); missing+=("$1 (Debian package $2)"); }
}

rust_min=$(sed -n 's/^rust-version *= *"\([0-9.]*\)".*/\1/p' "$top/Cargo.toml" | head -n 1)
[ -n "$rust_min" ] || fail "no rust-version in $top/Cargo.toml; is this a whole clone?"

at_least() { # at_least FOUND WANTED: versions a.b.c
    [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}
cargo_version() { (cd "$top" && cargo --version 2>/dev/null) | awk '{print $2}'; }
rust_is_here() {
    local found
    have cargo && found=$(cargo_version) && [ -n "$found" ] && at_least "${found%%-*}" "$rust_min"
}
kubectl_minor() {
    kubectl version --client -o json 2>/dev/null | sed -n 's/.*"minor": *"\([0-9]*\).*/\1/p' | head -n 1
}
kubectl_is_here() {
    local minor
    have kubectl && minor=$(kubectl_minor) && [ -n "$minor" ] && [ "$minor" -ge "$KUBECTL_MINOR_MIN" ]
}
cargo_deny() { # prints the path of the right cargo-deny
    local at
    for at in "$cache/cargo-deny-$CARGO_DENY_VERSION/bin/cargo-deny" "$(command -v cargo-deny || true)"; do
        if [ -n "$at" ] && [ -x "$at" ] && [ "$("$at" --version 2>/dev/null)" = "cargo-deny $CARGO_DENY_VERSION" ]; then
            echo "$at"; return 0
        fi
    done
    return 1
}
chromium_is_here() { # one that tests can drive: a snap does not see their temporary directories
    local name at
    for name in chromium chromium-browser google-chrome google-chrome-stable; do
        have "$name" || continue
        at=$(readlink -f "$(command -v "$name")")
        case $at in /snap/*|*/snap) continue ;; esac
        head -c 65536 "$at" | grep -aq /snap/ || return 0
    done
    return 1
}
docker_answers() { have docker && timeout 10 docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }
# True when Docker answers root, but this user may not use its socket.
docker_only_for_root() {
    have docker && [ "$(id -u)" -ne 0 ] && [ -S /var/run/docker.sock ] && [ ! -w /var/run/docker.sock ]
}

need gcc gcc
need g++ g++
need make make
need cmake cmake
need curl curl
need git git
[ -s /etc/ssl/certs/ca-certificates.crt ] || { packages+=(ca-certificates); missing+=("certificate authorities (Debian package ca-certificates)"); }
rust=ok
rust_is_here || { rust=missing; missing+=("Rust $rust_min or newer (found: $(cargo_version || true))"); }

docker=ok kubectl=ok chromium=ok
if [ $want_run = yes ] || [ "$scope" = bench ] || [ "$scope" = bench-pods ]; then
    need sqlite3 sqlite3
    need setpriv util-linux
fi
if [ $want_run = yes ]; then
    need mosquitto_sub mosquitto-clients
    need ss iproute2
    kubectl_is_here || { kubectl=missing; missing+=("kubectl 1.$KUBECTL_MINOR_MIN or newer"); }
fi
if [ $want_run = yes ] || [ "$scope" = bench-pods ]; then
    have dockerd || have docker || { packages+=(docker.io); missing+=("Docker engine (Debian package docker.io)"); }
    docker_answers || { docker=silent; missing+=("a Docker engine that answers"); }
fi
if [ $want_test = yes ]; then
    need mosquitto mosquitto
    need openssl openssl
    need podman podman
    chromium_is_here || chromium=missing
fi
if [ $want_test = yes ] || [ "$scope" = bench-pods ]; then
    need busybox busybox-static
fi
if [ "${CI:-}" = true ]; then without_chromium='tests of the admin page will fail, because CI=true'
else without_chromium='tests of the admin page will be skipped'
fi
deny=ok
if [ $want_lint = yes ]; then
    need shellcheck shellcheck
    have cargo-fmt || missing+=("rustfmt"); have cargo-clippy || missing+=("clippy")
    cargo_deny >/dev/null || { deny=missing; missing+=("cargo-deny $CARGO_DENY_VERSION"); }
fi

if [ ${#missing[@]} -eq 0 ] && [ $chromium = ok ]; then
    say "everything for '$scope' is here"
    exit 0
fi
if [ $install = no ]; then
    [ $chromium = ok ] || say "no Chromium (Debian package chromium, or google-chrome): $without_chromium" >&2
    [ ${#missing[@]} -gt 0 ] || exit 0
    {
        echo "setup: missing for '$scope':"
        printf 'setup:   - %s\n' "${missing[@]}"
        [ "${SKEP_SETUP:-yes}" != no ] || echo "setup: SKEP_SETUP=no forbids every installation: install these by hand, or run without it"
    } >&2
    exit 1
fi

# ---- installing ------------------------------------------------------------------------------------------------------

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"
    elif have sudo; then sudo "$@"
    else fail "'$*' needs root: run this as root or install sudo"
    fi
}
apt() { # apt ARGUMENTS: without questions; shows what it said only when it failed
    local log
    log=$(mktemp)
    if ! as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=a apt-get -qq -y -o DPkg::Lock::Timeout=120 \
        -o Dpkg::Options::=--force-confold "$@" >"$log" 2>&1 </dev/null; then
        tail -n 8 "$log" | sed 's/^/setup:   /' >&2
        rm -f "$log"
        return 1
    fi
    rm -f "$log"
}

if [ ${#missing[@]} -gt 0 ]; then
    say "for '$scope' these are missing and will be installed or started:"
    printf 'setup:   - %s\n' "${missing[@]}"
fi

apt_is_fresh=no
apt_install() {
    have apt-get || fail "this is neither Debian nor Ubuntu (no apt-get): install $* by hand and run again"
    if [ $apt_is_fresh = no ]; then
        say "apt-get update"
        apt update || fail "apt-get could not read the package lists (reason above): check the network and /etc/apt, or install $* by hand"
        apt_is_fresh=yes
    fi
    say "apt-get install $*"
    apt install --no-install-recommends "$@" || fail "apt-get could not install $* (reason above): mend that, or install them by hand and run again"
}

if [ ${#packages[@]} -gt 0 ]; then
    apt_install "${packages[@]}"
    case " ${packages[*]} " in *" mosquitto "*)
        # Debian starts it on 1883 at once. It was not here before, so nobody asked for a broker on this machine.
        say "stopping the mosquitto service that its package has just started (tests start their own)"
        if [ -d /run/systemd/system ]; then as_root systemctl disable --now mosquitto >/dev/null 2>&1 || true
        elif [ -x /etc/init.d/mosquitto ]; then
            as_root service mosquitto stop >/dev/null 2>&1 || true
            as_root update-rc.d mosquitto disable >/dev/null 2>&1 || true
        fi ;;
    esac
fi

if [ $rust = missing ] || { [ $want_lint = yes ] && ! { have cargo-fmt && have cargo-clippy; }; }; then
    if ! have rustup; then
        say "installing Rust with rustup, from https://sh.rustup.rs into ${CARGO_HOME:-$HOME/.cargo}"
        script=$(mktemp)
        curl --proto '=https' --tlsv1.2 --retry 2 --connect-timeout 20 -fsSL https://sh.rustup.rs -o "$script" || {
            rm -f "$script"
            fail "https://sh.rustup.rs cannot be reached, so Rust $rust_min was not installed: install it another way (https://rust-lang.org/tools/install), see that 'cargo --version' says $rust_min or newer, and run again"
        }
        sh "$script" -y --no-modify-path --profile minimal --component rustfmt --component clippy --default-toolchain stable >/dev/null || {
            rm -f "$script"
            fail "rustup could not install Rust (reason above)"
        }
        rm -f "$script"
    else
        say "rustup toolchain install stable (rustfmt, clippy)"
        rustup toolchain install stable --no-self-update --profile minimal --component rustfmt --component clippy >/dev/null ||
            fail "rustup could not install the stable toolchain (reason above): check that https://static.rust-lang.org can be reached"
    fi
    hash -r
    rust_is_here || fail "cargo is still $(cargo_version || echo missing), and Skep needs $rust_min: make the new toolchain the default with 'rustup default stable'"
fi

if [ $kubectl = missing ] && ! kubectl_is_here; then
    if have apt-get && { apt update || true; } && apt_is_fresh=yes && apt-cache show kubernetes-client >/dev/null 2>&1; then
        apt_install kubernetes-client
    else
        # Ubuntu has kubectl as a snap only, so it comes from the project itself, with its checksum.
        case $(uname -m) in x86_64) arch=amd64 ;; aarch64) arch=arm64 ;; *) fail "no kubectl is known for $(uname -m): install kubectl by hand" ;; esac
        url="https://dl.k8s.io/release/$KUBECTL_VERSION/bin/linux/$arch/kubectl"
        say "installing $url as /usr/local/bin/kubectl"
        dir=$(mktemp -d)
        if curl -fsSL --retry 2 --connect-timeout 20 -o "$dir/kubectl" "$url" && curl -fsSL --retry 2 --connect-timeout 20 -o "$dir/sum" "$url.sha256" &&
            echo "$(cat "$dir/sum")  $dir/kubectl" | sha256sum --check --status; then
            as_root install -m 0755 "$dir/kubectl" /usr/local/bin/kubectl
            rm -rf "$dir"
        else
            rm -rf "$dir"
            fail "kubectl could not be fetched from dl.k8s.io: install kubectl 1.$KUBECTL_MINOR_MIN or newer by hand and run again"
        fi
    fi
    hash -r
    kubectl_is_here || fail "kubectl on the PATH ($(command -v kubectl || echo none)) is older than 1.$KUBECTL_MINOR_MIN: remove it or put a newer one before it"
fi

if [ $chromium = missing ]; then
    # Where there is none, each run comes here again: the lists are read from the network only if this system has none.
    if have apt-get && [ $apt_is_fresh = no ] && ! compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null; then
        apt update && apt_is_fresh=yes
    fi
    candidate=$(apt-cache policy chromium 2>/dev/null | sed -n 's/^ *Candidate: *//p') || candidate=
    case $candidate in
        ''|'(none)'|*snap*)
            say "no package of this system brings a Chromium that tests can drive (Ubuntu's is a snap), so none is installed:" >&2
            say "$without_chromium; install google-chrome (https://www.google.com/chrome/) by hand to have them run" >&2 ;;
        *)
            say "Chromium is missing and will be installed: tests look at the admin page with it (some 350 MB)"
            apt_install chromium
            hash -r
            chromium_is_here || fail "the package chromium is installed, and still there is no chromium on the PATH" ;;
    esac
fi

if [ $docker = silent ] && ! docker_answers; then
    if ! docker_only_for_root; then
        have dockerd || apt_install docker.io
        if [ -d /run/systemd/system ]; then
            say "starting Docker: systemctl start docker"
            as_root systemctl start docker || fail "systemctl could not start Docker: see 'journalctl -u docker'"
        elif [ -x /etc/init.d/docker ] && as_root service docker start >/dev/null 2>&1; then
            say "started Docker: service docker start"
        fi
        waited=0
        until as_root timeout 10 docker version >/dev/null 2>&1; do
            if [ $waited -eq 5 ] && [ ! -d /run/systemd/system ] && ! pgrep -x dockerd >/dev/null; then
                say "starting Docker: dockerd in the background, log in /var/log/dockerd.log"
                as_root sh -c 'nohup setsid dockerd >/var/log/dockerd.log 2>&1 </dev/null &'
            fi
            if [ $waited -ge $DOCKER_WAIT_SECS ]; then
                [ ! -r /var/log/dockerd.log ] || tail -n 3 /var/log/dockerd.log | sed 's/^/setup:   /' >&2
                fail "the Docker engine did not answer within $DOCKER_WAIT_SECS s; it cannot run here (a container without privileges, or a kernel without what it needs), or its log says why"
            fi
            sleep 1
            waited=$((waited + 1))
        done
    fi
    if ! docker_answers && docker_only_for_root; then
        user=$(id -un)
        if ! id -nG "$user" | grep -qw docker; then
            say "adding $user to the group docker, who may use the Docker socket (as good as root)"
            as_root usermod -aG docker "$user" || fail "could not add $user to the group docker: run as root"
        fi
        # The group holds for new logins only; deploy/with-docker uses it at once.
        "$top/deploy/with-docker" docker version >/dev/null 2>&1 || fail "user $user still may not use /var/run/docker.sock: log in again and run again"
    fi
fi

if [ $deny = missing ]; then
    say "cargo install cargo-deny $CARGO_DENY_VERSION into $cache (some 4 minutes, once)"
    build=$(mktemp -d)
    CARGO_TARGET_DIR=$build cargo install -q cargo-deny --version "$CARGO_DENY_VERSION" --locked --root "$cache/cargo-deny-$CARGO_DENY_VERSION" </dev/null || {
        rm -rf "$build"
        fail "cargo could not install cargo-deny (reason above)"
    }
    rm -rf "$build"
fi

if [ $chromium = ok ] || chromium_is_here; then say "everything for '$scope' is here"
else say "everything for '$scope' is here but a Chromium"
fi
