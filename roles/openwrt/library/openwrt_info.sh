#!/bin/sh
# WANT_JSON
# Reads what preflight and the other tasks need to know of the router; changes nothing. Its options and answer:
# openwrt_info.yml.

if [ ! -r /etc/openwrt_release ] || [ ! -r /usr/share/libubox/jshn.sh ]; then
    echo '{"failed": true, "msg": "This is no OpenWrt: it has no /etc/openwrt_release or no jshn. Check the group routers in the inventory."}'
    exit 0
fi
# shellcheck source=/dev/null
. /usr/share/libubox/jshn.sh
packages='' address='' ports=''
json_load_file "$1"
json_get_values packages packages
json_get_var address address
json_get_values ports ports

# shellcheck source=/dev/null
. /etc/openwrt_release
if command -v apk >/dev/null; then
    manager=apk
    is_installed() { apk info -e "$1" >/dev/null 2>&1; }
else
    manager=opkg
    is_installed() { opkg list-installed | grep -q "^$1 - "; }
fi
installed='' missing=''
for package in $packages; do
    if is_installed "$package"; then installed="$installed $package"; else missing="$missing $package"; fi
done
target=/overlay
[ -d $target ] || target=/

# connects PORT: whether a connection is made. The base image's nc has no timeout; but its input ends at once, at which a
# receiver closes the connection.
connects() {
    nc "$address" "$1" </dev/null >/dev/null 2>&1 &
    waited=0
    while kill -0 $! 2>/dev/null && [ $waited -lt 5 ]; do
        sleep 1
        waited=$((waited + 1))
    done
    if kill $! 2>/dev/null; then
        # The receiver is there, but does not close it.
        netstat -tn 2>/dev/null | grep -Eq ":$1 +(ESTABLISHED|FIN_WAIT)"
    else
        wait $!
    fi
}

# reached TRANSPORT/PORT: UDP has no connection, so a ping has to do.
reached() {
    case $1 in
    tcp/*) connects "${1#*/}" ;;
    *) ping -c 1 -W 3 "$address" >/dev/null 2>&1 ;;
    esac
}

# unresolved: prints the package servers' names if packages are missing and the router can resolve none of these names. (If
# only one is gone, as of a feed that somebody has added, the package manager complains and goes on.)
unresolved() {
    [ -n "$missing" ] || return 0
    servers=$(cat /etc/opkg/*.conf /etc/apk/repositories.d/*.list 2>/dev/null |
        sed -n '/^ *#/d; s|.*https*://\([^/@]*@\)*\([^/:]*\).*|\2|p' | sort -u)
    for server in $servers; do
        case $server in
        '['* | *[0-9]) return 0 ;; # an address
        *) ! nslookup "$server" >/dev/null 2>&1 || return 0 ;;
        esac
    done
    # shellcheck disable=SC2086 # in one line
    echo $servers
}

# sections TYPE CONFIG: names of the sections of a type, as uci shows them.
sections() { uci -q show "$2" | sed -n "s/^$2\.\([^.]*\)=$1$/\1/p"; }

json_init
json_add_boolean changed 0
json_add_string release "${DISTRIB_RELEASE:-}"
json_add_string manager "$manager"
json_add_string hostname "$(uci -q get 'system.@system[0].log_hostname' || cat /proc/sys/kernel/hostname)"
json_add_array installed
for package in $installed; do json_add_string "" "$package"; done
json_close_array
json_add_int free_kb "$(df -Pk $target | awk 'NR == 2 { print $4 }')"
json_add_int memory_kb "$(awk '/^MemTotal:/ { print $2 }' /proc/meminfo)"
json_add_int clock "$(date +%s)"
json_add_string unresolved "$(unresolved)"
json_add_array unreached
for port in $ports; do reached "$port" || json_add_string "" "$port"; done
json_close_array
for setting in acct timestamp; do
    json_add_string conntrack_$setting "$(cat /proc/sys/net/netfilter/nf_conntrack_$setting 2>/dev/null)"
done
json_add_string flow_offloading_hw "$(uci -q get 'firewall.@defaults[0].flow_offloading_hw')"
# To see whether kernel settings can be written, write the present value again.
acct=/proc/sys/net/netfilter/nf_conntrack_acct
now=$(cat $acct 2>/dev/null)
json_add_boolean writable "$([ -e $acct ] && { echo "$now" >$acct; } 2>/dev/null && echo 1 || echo 0)"
for option in log_ip log_file log_buffer_size; do
    json_add_string $option "$(uci -q get "system.@system[0].$option")"
done
json_add_array dnsmasq
for section in $(sections dnsmasq dhcp); do json_add_string "" "$section"; done
json_close_array
json_add_array uncommitted
for config in system dhcp; do [ -z "$(uci -q changes $config)" ] || json_add_string "" $config; done
json_close_array
# An instance of dnsmasq that logs to a file or to its standard error.
json_add_string dnsmasq_log "$(uci -q show dhcp | sed -n "s/.*\.logfacility='\(-\|.*\/.*\)'$/\1/p" | head -n 1)"
json_add_boolean procd "$(ubus list service >/dev/null 2>&1 && echo 1 || echo 0)"
json_add_boolean nft "$(command -v nft >/dev/null && echo 1 || echo 0)"
json_add_boolean deployed "$([ -f /etc/wrtflow/former ] && echo 1 || echo 0)"
json_dump
