#!/bin/sh
# factory.sh PROGRAMS opkg|apk RELEASE ROOT: turns unpacked Debian packages in ROOT into a router with OpenWrt's first settings.
set -eu
. ./openwrt/lay.sh

programs=$1 flavour=$2 release=$3 root=$4
doubles=../doubles/openwrt

# Debian's merged /usr: dpkg's scripts, which make these links, did not run.
for dir in bin sbin lib lib64; do
    mkdir -p "$root/usr/$dir"
    ln -s "usr/$dir" "$root/$dir"
done

# Keep these programs of Debian's packages and the libraries. Remove every other shell, Perl, dpkg and all settings.
mv "$root/etc/ulogd.conf" "$root/usr/lib/"
for tool in "$root"/usr/bin/* "$root"/usr/sbin/*; do
    case ${tool##*/} in
    busybox | bridge | dbclient | dnsmasq | dropbear | dropbearkey | flock | ip | nft | pgrep | ulogd) ;;
    *) rm "$tool" ;;
    esac
done
for part in usr/share etc var usr/lib/systemd usr/lib/init usr/lib/dpkg; do rm -rf "${root:?}/$part"; done
mkdir -p "$root/usr/share" "$root/etc"

# The commands of a stock OpenWrt's busybox, and no others (it has no base64, hostname, sha1sum, stat, timeout, diff …).
for applet in [ [[ ash awk basename brctl bunzip2 bzcat cat chgrp chmod chown clear cmp cp crontab cut date dd df dirname \
    dmesg du echo egrep env expr false fgrep find free grep gunzip gzip head hexdump id kill killall less ln logger login \
    ls md5sum mkdir mkfifo mknod mktemp mv nc netstat nslookup passwd pidof ping ping6 printf ps pwd readlink reset rm \
    rmdir sed seq sh sha256sum sleep sort strings sync tail tar tee test time top touch tr traceroute traceroute6 true \
    uname uniq uptime vi wc wget which xargs yes zcat; do
    ln -s busybox "$root/usr/bin/$applet"
done
for applet in chroot crond fdisk halt ifconfig mkswap mount pivot_root poweroff reboot route start-stop-daemon \
    switch_root sysctl udhcpc umount; do
    ln -s ../bin/busybox "$root/usr/sbin/$applet"
done

# The doubles, and OpenWrt's own uci and jshn.
lay "$doubles/root" "$root"
lay "$doubles/$flavour" "$root"
install -D -m 755 "$programs/uci" "$root/usr/sbin/uci"
install -D -m 755 "$programs/jshn" "$root/usr/bin/jshn"
install -D -m 644 "$programs/jshn.sh" "$root/usr/share/libubox/jshn.sh"
install -m 755 "$programs/ubus" "$programs/jsonfilter" "$root/usr/bin/"
install -m 755 "$programs/procd" "$programs/ujail" "$programs/logd" "$programs/logread" "$root/usr/sbin/"
ln -sf procd "$root/usr/sbin/init"

# The release's names and numbers.
case $release in 22.* | 23.*) log_size=64 ;; *) log_size=128 ;; esac
arch=$(uname -m)
echo "log_size=$log_size" >"$root/usr/libexec/standin/release"
sed -i "s/option log_size '.*'/option log_size '$log_size'/" "$root/etc/config/system"
cat >"$root/etc/openwrt_release" <<END
DISTRIB_ID='OpenWrt'
DISTRIB_RELEASE='$release'
DISTRIB_REVISION='stand-in'
DISTRIB_TARGET='x86/64'
DISTRIB_ARCH='$arch'
DISTRIB_DESCRIPTION='OpenWrt $release stand-in'
DISTRIB_TAINTS='no-all'
END
echo "$release" >"$root/etc/openwrt_version"
mkdir -p "$root/usr/lib"
cat >"$root/usr/lib/os-release" <<END
NAME="OpenWrt"
VERSION="$release"
ID="openwrt"
ID_LIKE="lede openwrt"
PRETTY_NAME="OpenWrt $release"
VERSION_ID="$release"
HOME_URL="https://openwrt.org/"
BUILD_ID="stand-in"
OPENWRT_BOARD="x86/64"
OPENWRT_ARCH="$arch"
OPENWRT_RELEASE="OpenWrt $release stand-in"
END
ln -sf ../usr/lib/os-release "$root/etc/os-release"

# Folders. On OpenWrt, /var is a link to /tmp.
mkdir -p "$root/root" "$root/tmp" "$root/mnt" "$root/etc/uci-defaults" "$root/etc/hotplug.d/iface" \
    "$root/etc/crontabs" "$root/etc/dropbear" "$root/proc" "$root/sys" "$root/dev"
ln -s tmp "$root/var"
ln -sf /tmp/TZ "$root/etc/TZ"
: >"$root/etc/resolv.conf"
printf '127.0.0.1 localhost\n\n::1     localhost ip6-localhost ip6-loopback\n' >"$root/etc/hosts"

# The services that a stock router has enabled: the links that `enable` makes.
for script in "$root"/etc/init.d/*; do
    name=${script##*/}
    start=$(sed -n 's/^START=//p' "$script") stop=$(sed -n 's/^STOP=//p' "$script")
    mkdir -p "$root/etc/rc.d"
    [ -z "$start" ] || ln -sf "../init.d/$name" "$root/etc/rc.d/S$start$name"
    [ -z "$stop" ] || ln -sf "../init.d/$name" "$root/etc/rc.d/K$stop$name"
done
