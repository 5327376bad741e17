# uci.sh: stands for OpenWrt's /lib/config/uci.sh. Of its functions there is uci_get PACKAGE SECTION OPTION [DEFAULT].
# shellcheck shell=busybox

uci_get() {
	local value

	if value=$(/sbin/uci -q get "$1${2:+.$2}${3:+.$3}"); then
		echo "$value"
	else
		[ -n "$4" ] && echo "$4"
	fi
}
