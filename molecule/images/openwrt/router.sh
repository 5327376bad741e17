# Makes a router image (sourced by build.sh of openwrt-opkg, openwrt-apk and openwrt-image). See lib.sh for the environment.
# shellcheck shell=sh
#
# Both ways give a router fresh from the factory, and lay the same lab over it (openwrt/lab/: its addresses, short
# conntrack timeouts, leases, and a package feed on the router itself, since nothing in the lab reaches a mirror).
#   vendor    the real thing: OpenWrt's own root file system, the feed downloaded by its own package manager
#   registry  the stand-in: Debian's busybox, ulogd2, dnsmasq, dropbear …, real uci and jshn from the crate libuci-sys,
#             and doubles/openwrt/ for what is OpenWrt's own; the feed is made of Debian's ulogd2

. ./openwrt/lay.sh

# What roles/openwrt may ask a feed for; packages named by both managers.
FEED='ulogd ulogd-mod-nfct ulogd-mod-syslog ulogd-mod-extra ulogd-mod-json ulogd-mod-nflog'

# What the stand-in has of Debian. Not busybox-static: its shell prefers its own applets to all programs.
DEBIAN=busybox,dnsmasq-base,dropbear-bin,iproute2,nftables,procps,ulogd2,ulogd2-json,util-linux

# build_router opkg|apk RELEASE
build_router() {
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    "router_from_$WRTFLOW_LAB" "$1" "$2"
}

router_from_vendor() { lab_over "openwrt/rootfs:x86-64-$2" "$1"; }

# lab_over IMAGE [opkg|apk]: the lab on an image of OpenWrt. With a package manager, the feed is what that one downloads; else
# the image's feed stays as it is.
lab_over() {
    cp -r openwrt/lab openwrt/fetch-feed "$work/"
    {
        if [ -n "${2:-}" ]; then
            case $2 in opkg) feeds=/etc/opkg/distfeeds.conf ;; apk) feeds=/etc/apk/repositories.d/distfeeds.list ;; esac
            cat <<-END
	FROM $1 AS packages
	COPY fetch-feed /tmp/
	RUN sh /tmp/fetch-feed $2 $FEED
	FROM $1
	COPY --from=packages /lab/feed /lab/feed
	COPY --from=packages $feeds $feeds
	END
        else
            echo "FROM $1"
        fi
        printf 'COPY lab/ /\nLABEL wrtflow.sum=%s\n' "$SUM"
    } >"$work/Dockerfile"
    docker build --quiet --tag "$IMAGE" "$work" >/dev/null
}

# build_router_of IMAGE: the router of somebody's own image.
build_router_of() {
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    manager=
    [ "$WRTFLOW_LAB" = registry ] ||
        manager=$(docker run --rm --network none --entrypoint /bin/sh "$1" -c 'command -v apk >/dev/null && echo apk || echo opkg')
    lab_over "$1" "$manager"
}

router_from_registry() {
    kept=$WRTFLOW_CACHE/openwrt
    mkdir -p "$kept"
    ./openwrt/programs.sh "$kept/programs"
    # Both flavours are made of the same packages, downloaded once.
    debian=$kept/debian-$(echo "$DEBIAN" | cksum | cut -d' ' -f1).tar
    [ -e "$debian" ] || {
        debian_rootfs "$work/debian.tar" "$DEBIAN" --variant=extract
        mv "$work/debian.tar" "$debian"
    }
    mkdir "$work/root"
    tar -C "$work/root" -xf "$debian"
    ./openwrt/factory.sh "$kept/programs" "$1" "$2" "$work/root"
    ./openwrt/feed.sh "$1" "$work/root"
    lay openwrt/lab "$work/root"
    tar -C "$work/root" --owner=0 --group=0 --numeric-owner -cf "$work/root.tar" .
    import_image "$work/root.tar"
}
