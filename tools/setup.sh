#!/bin/sh
# Installs what wrtflow's commands need on a Debian or Ubuntu machine, and says what it installs.
#
#   tools/setup.sh venv   the Python environment .venv (ansible, molecule, linters): enough for `make check`
#   tools/setup.sh lab    that, and a Docker engine and the tools that build the lab's images
#
# Safe to run again: it installs only what is missing.
set -eu

cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"
    elif have sudo; then sudo "$@"
    else die "needs root for: $*. Run it as root, or install sudo."
    fi
}

# Registries fail for minutes at a time: try three times. What the client prints is shown.
retry() {
    for pause in 10 30 0; do
        "$@" && return 0
        [ "$pause" -eq 0 ] || { say "failed, trying again in $pause s: $*"; sleep "$pause"; }
    done
    return 1
}

# install_missing COMMAND=PACKAGE...: installs the package of each command that is not on PATH.
# COMMAND may be a path: then the package is installed if that file does not exist.
install_missing() {
    missing=
    for pair in "$@"; do
        case $pair in
        /*) [ -e "${pair%%=*}" ] || missing="$missing ${pair#*=}" ;;
        *) have "${pair%%=*}" || missing="$missing ${pair#*=}" ;;
        esac
    done
    [ -n "$missing" ] || return 0
    have apt-get || die "this is neither Debian nor Ubuntu. Install what these Debian packages contain by hand, then run this again:$missing"
    say "installing with apt-get:$missing"
    retry as_root apt-get update -qq || die "apt-get update failed: is there a network?"
    # shellcheck disable=SC2086 # a list of packages
    retry as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null ||
        die "apt-get could not install:$missing"
}

setup_venv() {
    stamp=.venv/requirements.sum
    sum=$(cat requirements.txt | cksum)
    if [ -x .venv/bin/python ] && [ "$(cat $stamp 2>/dev/null)" = "$sum" ]; then return 0; fi
    install_missing python3=python3
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "Python 3.11 or newer is needed, this is $(python3 --version)"
    # Debian has ensurepip in a package of its own, python3-venv.
    python3 -c 'import ensurepip' 2>/dev/null || install_missing /nonexistent=python3-venv
    say "making .venv from requirements.txt (a few minutes the first time)"
    python3 -m venv .venv
    retry .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt ||
        die "pip could not install requirements.txt"
    echo "$sum" >$stamp
}

docker_answers() { docker version >/dev/null 2>&1; }

setup_docker() {
    docker_answers && return 0
    if [ "$(id -u)" -ne 0 ] && as_root docker version >/dev/null 2>&1; then
        join_docker_group
        return 0
    fi
    say "no Docker engine answers: installing and starting one"
    install_missing dockerd=docker.io docker=docker.io iptables=iptables ip=iproute2
    if [ -d /run/systemd/system ]; then
        as_root systemctl start docker
    else
        as_root sh -c 'setsid nohup dockerd >>/var/log/dockerd.log 2>&1 </dev/null &'
    fi
    tries=60
    until as_root docker version >/dev/null 2>&1; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || die "the Docker engine did not start in 60 s: see /var/log/dockerd.log or journalctl -u docker"
        sleep 1
    done
    docker_answers || join_docker_group
}

# A user of sudo needs the group docker. tools/lab-env gets it without a new login (sg docker).
join_docker_group() {
    say "adding $(id -un) to the group docker, which owns the engine's socket"
    as_root usermod -aG docker "$(id -un)"
}

case ${1:-} in
venv)
    setup_venv
    ;;
lab)
    setup_venv
    setup_docker
    install_missing curl=curl apt-ftparchive=apt-utils gpg=gnupg dpkg-deb=dpkg openssl=openssl npm=npm
    # Where the vendors' servers can't be reached, the stand-ins are compiled here (molecule/README.md).
    [ "$(. molecule/images/lib.sh && lab_way)" = vendor ] ||
        install_missing mmdebstrap=mmdebstrap /usr/share/keyrings/debian-archive-keyring.gpg=debian-archive-keyring \
            cargo=cargo gcc=gcc /usr/include/stdio.h=libc6-dev /usr/include/json-c/json.h=libjson-c-dev \
            mvn=maven
    ;;
*)
    die "usage: tools/setup.sh venv|lab"
    ;;
esac
