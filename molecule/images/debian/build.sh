#!/bin/sh
# The log server: Debian 13 with systemd and what Ansible needs, without anything of wrtflow. It installs packages from the lab's
# repository. /lab/mirror.d has the address of the mirror, from which that repository is filled.
set -eu
. ./lib.sh

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ "$WRTFLOW_LAB" = vendor ]; then
    cat >"$work/Dockerfile" <<-END
	FROM debian:13
	RUN apt-get update && apt-get install -y --no-install-recommends \
	    ca-certificates curl iproute2 iputils-ping nftables procps python3 python3-apt sudo systemd systemd-sysv dbus
	RUN mkdir -p /lab && mv /etc/apt/sources.list.d /lab/mirror.d && mkdir /etc/apt/sources.list.d
	COPY overlay/ /
	LABEL wrtflow.sum=$SUM
	END
    cp -r debian/overlay "$work/"
    docker build --quiet --tag "$IMAGE" "$work" >/dev/null
else
    # shellcheck disable=SC2016 # $1 is mmdebstrap's: the new root
    debian_rootfs "$work/root.tar" \
        ca-certificates,curl,iproute2,iputils-ping,nftables,procps,python3,python3-apt,sudo,systemd,systemd-sysv,dbus \
        --customize-hook='mkdir -p "$1/lab/mirror.d" && mv "$1/etc/apt/sources.list" "$1/lab/mirror.d/debian.list"' \
        --customize-hook='copy-in debian/overlay/. /'
    import_image "$work/root.tar"
fi
