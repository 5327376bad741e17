#!/bin/sh
# feed.sh opkg|apk ROOT: takes ulogd and its plugins out of the stand-in and packs them into the router's feed /lab/feed. The
# packages have the names, contents and dependencies of OpenWrt's.
set -eu

flavour=$1 root=$2
libraries=$(cd "$root" && ls -d usr/lib/*-linux-gnu)
feed=$root/lab/feed
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$feed"
arch=$(uname -m)
case $flavour in opkg) revision=1 ;; apk) revision=r1 ;; esac

# pack NAME VERSION DEPENDS DESCRIPTION: packs $work/NAME/data.
pack() {
    dir=$work/$1
    mkdir -p "$dir/control" "$dir/data"
    cat >"$dir/control/control" <<-END
	Package: $1
	Version: $2-$revision
	Depends: $3
	Section: net
	Architecture: $arch
	Installed-Size: $(du -sb "$dir/data" | cut -f1)
	Description: $4
	END
    # Every package of OpenWrt has these scripts of two lines.
    for script in postinst prerm; do
        # shellcheck disable=SC2016 # for the router's shell
        printf '#!/bin/sh\n. "${IPKG_INSTROOT}/lib/functions.sh"\ndefault_%s "$0" "$@"\n' "$script" >"$dir/control/$script"
        chmod 755 "$dir/control/$script"
    done
    if [ -f "$dir/data/etc/ulogd.conf" ]; then echo /etc/ulogd.conf >"$dir/control/conffiles"; fi
    echo 2.0 >"$dir/debian-binary"
    for part in control data; do tar -C "$dir/$part" --owner=0 --group=0 -czf "$dir/$part.tar.gz" .; done
    file=${1}_$2-${revision}_$arch.ipk
    tar -C "$dir" --owner=0 --group=0 -czf "$feed/$file" ./debian-binary ./control.tar.gz ./data.tar.gz
    {
        cat "$dir/control/control"
        printf 'Filename: %s\nSize: %s\nSHA256sum: %s\n\n' "$file" "$(wc -c <"$feed/$file")" \
            "$(sha256sum <"$feed/$file" | cut -d' ' -f1)"
    } >>"$feed/Packages"
}

# plugins NAME DEPENDS DESCRIPTION PLUGIN…: packs ulogd-mod-NAME.
plugins() {
    name=$1 needs=$2 about=$3
    shift 3
    mkdir -p "$work/ulogd-mod-$name/data/usr/lib/ulogd"
    for plugin in "$@"; do
        mv "$root/$libraries/ulogd/ulogd_$plugin.so" "$work/ulogd-mod-$name/data/usr/lib/ulogd/"
    done
    pack "ulogd-mod-$name" 2.0.8 "libc, ulogd$needs" "$about"
}

library() { # PACKAGE FILE VERSION DEPENDS: packs a library that a plugin needs
    mkdir -p "$work/$1/data/usr/lib"
    cp -L "$root/$libraries/$2" "$work/$1/data/usr/lib/"
    pack "$1" "$3" "libc$4" "Library $2"
}

data=$work/ulogd/data
mkdir -p "$data/usr/sbin" "$data/usr/lib/ulogd" "$data/etc/init.d"
mv "$root/usr/sbin/ulogd" "$data/usr/sbin/"
mv "$root/$libraries/ulogd/ulogd_raw2packet_BASE.so" "$data/usr/lib/ulogd/"
# OpenWrt's file is ulogd's own with every plugin and stack commented out. Debian's has other paths and one stack more.
sed -e '/Debian/d' -e "s,/usr/lib/[^/]*/ulogd/,/usr/lib/ulogd/," -e 's/^stack=/#&/' -e 's/^plugin=/#&/' \
    -e 's,^logfile=.*,logfile="/var/log/ulogd.log",' "$root/usr/lib/ulogd.conf" >"$data/etc/ulogd.conf"
rm "$root/usr/lib/ulogd.conf"
cp -p ../doubles/openwrt/ulogd/ulogd.init "$data/etc/init.d/ulogd"
pack ulogd 2.0.8 'libc, libmnl0, libnfnetlink0' 'Netfilter userspace logging daemon'

mkdir -p "$work/kmod-nf-conntrack-netlink/data/etc/modules.d"
echo nf_conntrack_netlink >"$work/kmod-nf-conntrack-netlink/data/etc/modules.d/nf-conntrack-netlink"
pack kmod-nf-conntrack-netlink 5.15.167 kernel 'Connection tracking netlink interface'
library libnfnetlink0 libnfnetlink.so.0 1.0.2 ''
library libnetfilter-conntrack3 libnetfilter_conntrack.so.3 1.0.9 ', libnfnetlink0, kmod-nf-conntrack-netlink, libmnl0'
library jansson4 libjansson.so.4 2.14 ''
plugins nfct ', libnetfilter-conntrack3' 'Input plugin for flow-based logging (conntracking)' inpflow_NFCT
plugins syslog '' 'Syslog output plugin' output_SYSLOG
plugins json ', jansson4' 'JSON output plugin' output_JSON
plugins nflog '' 'Input plugin using NFLOG' inppkt_NFLOG
plugins xml '' 'XML output plugin' output_XML
plugins extra '' 'Extra plugins' filter_HWHDR filter_IFINDEX filter_IP2BIN filter_IP2HBIN filter_IP2STR filter_MARK \
    filter_PRINTFLOW filter_PRINTPKT filter_PWSNIFF inppkt_UNIXSOCK output_GPRINT output_GRAPHITE output_LOGEMU output_OPRINT

gzip -9nc "$feed/Packages" >"$feed/Packages.gz"
rm -f "$feed/Packages"

# Debian's ulogd looks for plugins in Debian's folder. What is left there is in no package of OpenWrt's.
rm -rf "${root:?}/$libraries/ulogd"
ln -s /usr/lib/ulogd "$root/$libraries/ulogd"

# Where the package manager finds the feed, and which packages a stock router has.
case $flavour in
opkg)
    status=$root/usr/lib/opkg/status info=$root/usr/lib/opkg/info
    echo 'src/gz openwrt_packages file:///lab/feed' >"$root/etc/opkg/distfeeds.conf"
    ;;
apk)
    status=$root/lib/apk/db/installed info=$root/lib/apk/packages
    echo 'file:///lab/feed/packages.adb' >"$root/etc/apk/repositories.d/distfeeds.list"
    ;;
esac
mkdir -p "${status%/*}" "$info"
for package in base-files busybox dnsmasq dropbear firewall4 jshn jsonfilter kernel libc libmnl0 libnftnl11 logd netifd \
    nftables-json "$flavour" procd ubox ubus uci; do
    printf 'Package: %s\nVersion: 1-%s\nStatus: install user installed\nArchitecture: %s\nInstalled-Size: 65536\n\n' \
        "$package" "$revision" "$arch"
    : >"$info/$package.list"
done >"$status"
if [ "$flavour" = apk ]; then
    sed -n 's/^Package: //p' "$status" | LC_ALL=C sort >"$root/etc/apk/world"
fi
