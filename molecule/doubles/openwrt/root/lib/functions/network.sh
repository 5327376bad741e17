# network.sh: stands for OpenWrt's /lib/functions/network.sh: what scripts ask of the interfaces.
# shellcheck shell=busybox
# From the functions' names in its documentation; the answers come from `ubus call network.interface dump`.
# Differences: no caching, no tunnels, no delegated prefixes; the WAN is the interface of that name.

network_flush_cache() { return 0; }

# _network VARIABLE INTERFACE PATH: what the interface's status has at a JSON path, blank separated; 1 where nothing is.
_network() {
	local found

	found=$(ubus call network.interface status "{\"interface\":\"$2\"}" 2>/dev/null | jsonfilter -e "$3" | tr '\n' ' ')
	eval "$1=\${found% }"
	[ -n "$found" ]
}
# _network_subnets VARIABLE INTERFACE FAMILY: address/length of each address.
_network_subnets() {
	local found

	found=$(ubus call network.interface status "{\"interface\":\"$2\"}" 2>/dev/null |
		jsonfilter -e "@[\"ipv$3-address\"][*]" | while read -r each; do
		printf '%s/%s ' "$(jsonfilter -s "$each" -e @.address)" "$(jsonfilter -s "$each" -e @.mask)"
	done)
	eval "$1=\${found% }"
	[ -n "$found" ]
}
network_is_up() { [ "$(ubus call network.interface status "{\"interface\":\"$1\"}" 2>/dev/null | jsonfilter -e @.up)" = true ]; }
network_find_wan() { eval "$1=wan" && network_is_up wan; }
network_find_wan6() { network_find_wan "$1"; }
network_get_device() { _network "$1" "$2" @.l3_device; }
network_get_physdev() { _network "$1" "$2" @.device; }
network_get_protocol() { _network "$1" "$2" @.proto; }
network_get_ipaddr() { _network "$1" "$2" '@["ipv4-address"][0].address'; }
network_get_ipaddr6() { _network "$1" "$2" '@["ipv6-address"][0].address'; }
network_get_ipaddrs() { _network "$1" "$2" '@["ipv4-address"][*].address'; }
network_get_ipaddrs6() { _network "$1" "$2" '@["ipv6-address"][*].address'; }
network_get_dnsserver() { _network "$1" "$2" '@["dns-server"][*]'; }
network_get_subnets() { _network_subnets "$1" "$2" 4; }
network_get_subnets6() { _network_subnets "$1" "$2" 6; }
network_get_subnet() { network_get_subnets "$1" "$2" && eval "$1=\${$1%% *}"; }
network_get_subnet6() { network_get_subnets6 "$1" "$2" && eval "$1=\${$1%% *}"; }
