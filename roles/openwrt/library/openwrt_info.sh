#!/bin/sh
# WANT_JSON
# Reads what preflight and the other tasks need to know of the router; changes nothing.
#
#   packages   names of packages (optional): installed says which are there
#
# Returns: release (as 23.05.5), manager (opkg or apk), installed (list), free_kb (of the file system that packages go
# to), memory_kb, clock (seconds since 1970), conntrack_acct, flow_offloading_hw, log_ip, log_port, log_proto.

if [ ! -r /etc/openwrt_release ] || [ ! -r /usr/share/libubox/jshn.sh ]; then
    echo '{"failed": true, "msg": "This is no OpenWrt: it has no /etc/openwrt_release or no jshn. Check the group routers in the inventory."}'
    exit 0
fi
# shellcheck source=/dev/null
. /usr/share/libubox/jshn.sh
packages=''
json_load_file "$1"
json_get_values packages packages

# shellcheck source=/dev/null
. /etc/openwrt_release
manager=
for each in apk opkg; do
    if command -v $each >/dev/null; then manager=$each && break; fi
done
installed=
for package in $packages; do
    case $manager in
    apk) apk info -e "$package" >/dev/null 2>&1 && installed="$installed $package" ;;
    opkg) [ -n "$(opkg status "$package" 2>/dev/null)" ] && installed="$installed $package" ;;
    esac
done
target=/overlay
[ -d $target ] || target=/

json_init
json_add_boolean changed 0
json_add_string release "${DISTRIB_RELEASE:-}"
json_add_string manager "$manager"
json_add_array installed
for package in $installed; do json_add_string "" "$package"; done
json_close_array
json_add_int free_kb "$(df -Pk $target | awk 'NR == 2 { print $4 }')"
json_add_int memory_kb "$(awk '/^MemTotal:/ { print $2 }' /proc/meminfo)"
json_add_int clock "$(date +%s)"
json_add_string conntrack_acct "$(cat /proc/sys/net/netfilter/nf_conntrack_acct 2>/dev/null)"
json_add_string flow_offloading_hw "$(uci -q get 'firewall.@defaults[0].flow_offloading_hw')"
for option in log_ip log_port log_proto; do
    json_add_string $option "$(uci -q get "system.@system[0].$option")"
done
json_dump
