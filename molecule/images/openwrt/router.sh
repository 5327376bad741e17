# Makes a router image (sourced by openwrt-opkg/build.sh and openwrt-apk/build.sh). See lib.sh for the environment.
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
DEBIAN=busybox,conntrack,dnsmasq-base,dropbear-bin,iproute2,nftables,procps,ulogd2,ulogd2-json,util-linux

# build_router opkg|apk RELEASE
build_router() {
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    "router_from_$WRTFLOW_LAB" "$1" "$2"
}

router_from_vendor() {
    case $1 in opkg) feeds=/etc/opkg/distfeeds.conf ;; apk) feeds=/etc/apk/repositories.d/distfeeds.list ;; esac
    cat >"$work/Dockerfile" <<-END
	FROM openwrt/rootfs:x86-64-$2 AS packages
	COPY fetch-feed /tmp/
	RUN sh /tmp/fetch-feed $1 $FEED
	FROM openwrt/rootfs:x86-64-$2
	COPY --from=packages /lab/feed /lab/feed
	COPY --from=packages $feeds $feeds
	COPY lab/ /
	LABEL wrtflow.sum=$SUM
	END
    cp -r openwrt/lab openwrt/fetch-feed "$work/"
    docker build --quiet --tag "$IMAGE" "$work" >/dev/null
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
