# uci.sh: stands for OpenWrt's /lib/config/uci.sh, short words for `uci` (uci_get PACKAGE SECTION OPTION [DEFAULT] …).
# shellcheck shell=busybox

uci_load() { config_load "$1"; }
uci_get() {
	local value

	if value=$(/sbin/uci -q get "$1${2:+.$2}${3:+.$3}"); then
		echo "$value"
	else
		[ -n "$4" ] && echo "$4"
	fi
}
uci_set() { /sbin/uci set "$1.$2.$3=$4"; }
uci_add() { /sbin/uci add "$1" "$2" >/dev/null; }
uci_remove() { /sbin/uci del "$1${2:+.$2}${3:+.$3}"; }
uci_commit() { /sbin/uci commit "$@"; }
