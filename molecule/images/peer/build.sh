#!/bin/sh
# The two ends of the traffic, client and internet: one image, two commands (overlay/lab). tools/lab.py also runs conntrack from
# this image in the router's network: a stock OpenWrt has no conntrack program.
set -eu
. ./lib.sh

packages=busybox,ca-certificates,conntrack,curl,dnsmasq-base,bind9-dnsutils,iproute2,iputils-ping,procps,python3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ "$WRTFLOW_LAB" = vendor ]; then
    cat >"$work/Dockerfile" <<-END
	FROM debian:13
	RUN apt-get update && apt-get install -y --no-install-recommends $(echo $packages | tr , ' ')
	COPY overlay/ /
	LABEL wrtflow.sum=$SUM
	END
    cp -r peer/overlay "$work/"
    docker build --quiet --tag "$IMAGE" "$work" >/dev/null
else
    debian_rootfs "$work/root.tar" "$packages" --customize-hook='copy-in peer/overlay/. /'
    import_image "$work/root.tar"
fi
