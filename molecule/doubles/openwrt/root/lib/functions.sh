# functions.sh: stands for OpenWrt's /lib/functions.sh, the library of its init scripts.
# shellcheck shell=busybox
# shellcheck disable=SC2034,SC2154 # names made by eval, as UCI's shell interface has them
# From its callers and base-files' documentation: config_load and its kin read UCI into CONFIG_<section>_<option>.
# Differences: nothing of flash, boards, users and groups beyond what the image's packages need.

N='
'

append() { eval "$1=\"\${$1:+\${$1}${3:- }}\$2\""; }

list_contains() {
	local words

	eval "words=\" \$$1 \""
	case $words in *" $2 "*) return 0 ;; *) return 1 ;; esac
}

# What `uci export` prints is a program of these four words.
package() { return 0; }
config() {
	CONFIG_NUM_SECTIONS=$((CONFIG_NUM_SECTIONS + 1))
	CONFIG_SECTION=${2:-cfg$CONFIG_NUM_SECTIONS}
	append CONFIG_SECTIONS "$CONFIG_SECTION"
	config_set "$CONFIG_SECTION" TYPE "$1"
	config_cb "$1" "$CONFIG_SECTION"
}
option() {
	config_set "$CONFIG_SECTION" "$1" "$2"
	option_cb "$1" "$2"
}
list() {
	local length

	config_get length "$CONFIG_SECTION" "$1_LENGTH" 0
	length=$((length + 1))
	config_set "$CONFIG_SECTION" "$1_ITEM$length" "$2"
	config_set "$CONFIG_SECTION" "$1_LENGTH" "$length"
	append "CONFIG_${CONFIG_SECTION}_$1" "$2"
	list_cb "$1" "$2"
}
reset_cb() {
	config_cb() { return 0; }
	option_cb() { return 0; }
	list_cb() { return 0; }
}
reset_cb

config_load() {
	local name exported

	[ -n "$IPKG_INSTROOT" ] && return 0
	for name in $CONFIG_SECTIONS; do unset "CONFIG_${name}_TYPE"; done
	CONFIG_SECTIONS='' CONFIG_NUM_SECTIONS=0 CONFIG_SECTION=''
	# -n: an unnamed section gets its generated name (cfg0123ab), by which `uci` knows it too.
	exported=$(/sbin/uci -n export "$1" 2>/dev/null) || return 1
	eval "$exported"
}

# config_get VARIABLE SECTION OPTION [DEFAULT]
config_get() { eval "$1=\${CONFIG_$2_$3:-\$4}"; }
config_set() { eval "CONFIG_$1_$2=\$3"; }
config_get_bool() {
	local value

	config_get value "$2" "$3" "$4"
	case $value in
	1 | on | true | yes | enabled) value=1 ;;
	0 | off | false | no | disabled) value=0 ;;
	*) value=$4 ;;
	esac
	eval "$1=\$value"
}

config_foreach() {
	local function=$1 wanted=$2 section type

	shift
	[ $# -gt 0 ] && shift
	for section in $CONFIG_SECTIONS; do
		config_get type "$section" TYPE
		[ -z "$wanted" ] || [ "$type" = "$wanted" ] || continue
		"$function" "$section" "$@"
	done
}

config_list_foreach() {
	local section=$1 option=$2 function=$3 length value i=1

	shift 3
	config_get length "$section" "${option}_LENGTH" 0
	while [ "$i" -le "$length" ]; do
		config_get value "$section" "${option}_ITEM$i"
		"$function" "$value" "$@"
		i=$((i + 1))
	done
}

# The package scripts: services of a package are enabled and started with it, and stopped and disabled before it goes.
_package_services() {
	local list

	for list in "/usr/lib/opkg/info/$1.list" "/lib/apk/packages/$1.list"; do
		[ -f "$list" ] && sed -n 's#^/*\(etc/init\.d/[^/]*\)$#/\1#p' "$list"
	done
}
default_postinst() {
	local script

	for script in $(_package_services "$(basename "${1%.*}")"); do
		[ "$PKG_UPGRADE" = 1 ] || "$script" enable
		"$script" start
	done
	return 0
}
default_prerm() {
	local script

	for script in $(_package_services "$(basename "${1%.*}")"); do
		[ "$PKG_UPGRADE" = 1 ] || "$script" disable
		"$script" stop
	done
	return 0
}


[ -n "$IPKG_INSTROOT" ] || . /lib/config/uci.sh
