# Makes a router image (sourced by build.sh of openwrt-opkg, openwrt-apk and openwrt-image). See lib.sh for the environment.
# shellcheck shell=sh
#
# Both ways make a router with OpenWrt's first settings, and lay the same files over it (openwrt/lab: addresses, short conntrack
# timeouts, leases, and a package feed on the router itself, because the lab reaches no mirror).
#   vendor    OpenWrt's own root file system; its package manager downloads the feed
#   registry  a stand-in: Debian's busybox, ulogd2, dnsmasq, dropbear …; uci and jshn compiled from OpenWrt's sources in the crate
#             libuci-sys; doubles/openwrt for the rest of OpenWrt. The feed is made from Debian's ulogd2

. ./openwrt/lay.sh

# The packages that roles/openwrt may install. Their names are the same for opkg and apk.
FEED='ulogd ulogd-mod-nfct ulogd-mod-syslog ulogd-mod-extra ulogd-mod-json ulogd-mod-nflog'

# The stand-in's packages from Debian. Not busybox-static: its shell prefers its applets to programs of the same name.
DEBIAN=busybox,dnsmasq-base,dropbear-bin,iproute2,nftables,procps,ulogd2,ulogd2-json,util-linux

# build_router opkg|apk RELEASE
build_router() {
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    "router_from_$WRTFLOW_LAB" "$1" "$2"
}

router_from_vendor() { lab_over "openwrt/rootfs:x86-64-$2" "$1"; }

# lab_over IMAGE [opkg|apk]: lays the lab over an image of OpenWrt. If a package manager is named, it downloads the feed; else the
# image keeps the feed that it has.
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

# build_router_of IMAGE: makes the router from the user's own image.
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
    # Both flavours use the same packages, which are downloaded once.
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
