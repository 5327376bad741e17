# procd.sh: stands for OpenWrt's library of the same name: an init script's description of its service, sent to procd.
# shellcheck shell=busybox
# From the API that procd.sh documents in its head and the developer guide; the messages go to `ubus call service set`.
# Differences: no lock (a router's init scripts of one service wait for one another); no mounts, mdns, validation
# triggers and netdev triggers (accepted, without effect).
. "$IPKG_INSTROOT/usr/share/libubox/jshn.sh"

# Runs a function of this file in a JSON namespace of its own, so that a script's own JSON is left alone.
_procd() {
	local old

	json_set_namespace procd old
	"$@"
	json_set_namespace "$old"
}
_procd_strings() {
	local word

	for word in "$@"; do json_add_string '' "$word"; done
}
_procd_array() {
	json_add_array "$1"
	shift
	_procd_strings "$@"
	json_close_array
}
_procd_pairs() {
	local pair

	for pair in "$@"; do json_add_string "${pair%%=*}" "${pair#*=}"; done
}
_procd_send() {
	ubus call service "$1" "$(json_dump)"
	json_cleanup
}

_procd_open_service() {
	json_init
	json_add_string name "$1"
	json_add_string script "$2"
	json_add_object instances
	_procd_instances=0
}
_procd_close_service() {
	json_close_object
	json_add_array triggers
	json_set_namespace ''
	service_triggers
	json_set_namespace procd
	json_close_array
	json_add_object data
	json_set_namespace ''
	service_data
	json_set_namespace procd
	json_close_object
	_procd_send "${1:-set}"
}
_procd_open_instance() {
	_procd_instances=$((_procd_instances + 1))
	json_add_object "${1:-instance$_procd_instances}"
}
_procd_close_instance() {
	local values _json_no_warning=1

	if json_select respawn; then
		json_get_values values
		# shellcheck disable=SC2046 # three numbers
		[ -n "$values" ] || _procd_strings \
			"$(uci_get system '@service[0]' respawn_threshold 3600)" \
			"$(uci_get system '@service[0]' respawn_timeout 5)" \
			"$(uci_get system '@service[0]' respawn_retry 5)"
		json_select ..
	fi
	json_close_object
}
_procd_set_param() {
	local type=$1

	shift
	case $type in
	env | data | limits)
		json_add_object "$type"
		_procd_pairs "$@"
		json_close_object
		;;
	command | netdev | file | respawn | watch | watchdog | error) _procd_array "$type" "$@" ;;
	nice | term_timeout) json_add_int "$type" "$1" ;;
	reload_signal) json_add_int "$type" "$(kill -l "$1")" ;;
	stdout | stderr | no_new_privs) json_add_boolean "$type" "$1" ;;
	*) json_add_string "$type" "$1" ;;
	esac
}
_procd_append_param() {
	local type=$1 _json_no_warning=1

	shift
	json_select "$type" || {
		_procd_set_param "$type" "$@"
		return
	}
	case $type in env | data | limits) _procd_pairs "$@" ;; *) _procd_strings "$@" ;; esac
	json_select ..
}

# NAME, then what it may use: log is its socket.
_procd_add_jail() {
	local _use

	json_add_object jail
	json_add_string name "$1"
	shift
	for _use in "$@"; do json_add_boolean "$_use" 1; done
	json_close_object
}

# [EVENT, ["if", ["eq", KEY, VALUE], ["run_script", COMMAND…]], MILLISECONDS]
_procd_trigger() {
	local event=$1 key=$2 value=$3

	shift 3
	json_add_array ''
	json_add_string '' "$event"
	json_add_array ''
	json_add_string '' if
	_procd_array '' eq "$key" "$value"
	_procd_array '' run_script "$@"
	json_close_array
	json_add_int '' 1000
	json_close_array
}
_procd_add_reload_trigger() {
	local package

	# shellcheck disable=SC2154 # rc.common's
	for package in "$@"; do _procd_trigger config.change package "$package" "/etc/init.d/$service" reload; done
}
_procd_kill() {
	json_init
	json_add_string name "$1"
	[ -z "$2" ] || json_add_string instance "$2"
	_procd_send delete 2>/dev/null
}
_procd_send_signal() {
	json_init
	json_add_string name "$1"
	[ -z "$2" ] || [ "$2" = '*' ] || json_add_string instance "$2"
	case $3 in [A-Z]*) json_add_int signal "$(kill -l "$3")" ;; ?*) json_add_int signal "$3" ;; esac
	_procd_send signal
}
_procd_status() {
	local list

	list=$(ubus call service list "{\"name\":\"$1\"}" | jsonfilter -e "@[\"$1\"]")
	[ -n "$list" ] || { echo inactive; return 3; }
	list=$(jsonfilter -s "$list" -e '$.instances')
	[ -n "$list" ] || { [ -n "$2" ] || { echo 'active with no instances'; return 0; }; }
	[ -z "$2" ] || jsonfilter -q -s "${list:-{\}}" -e "@[\"$2\"]" >/dev/null || { echo "unknown instance $2"; return 4; }
	echo running
}
procd_running() {
	local instance='*'

	[ -z "$2" ] || [ "$2" = '*' ] || instance="'$2'"
	[ "$(ubus call service list "{\"name\":\"$1\"}" |
		jsonfilter -l 1 -e "@['$1'].instances[$instance].running")" = true ]
}

for _name in open_service close_service open_instance close_instance set_param append_param kill send_signal \
	add_jail add_reload_trigger; do
	eval "procd_$_name() { _procd _procd_$_name \"\$@\"; }"
done
unset _name

# uci_load_validate PACKAGE TYPE SECTION FUNCTION NAME:TYPE[:DEFAULT]…: sets the named variables from the section and
# calls FUNCTION SECTION RESULT, RESULT not 0 where a value is not of its type (checked: uinteger, port, bool, or()).
uci_load_validate() {
	local _package=$1 _section=$3 _function=$4 _result=0 _spec _name _type _default _value

	shift 4
	for _spec in "$@"; do
		_name=${_spec%%:*} _type=${_spec#*:} _default=''
		case $_type in *:*) _default=${_type##*:} _type=${_type%:*} ;; esac
		_value=$(/sbin/uci -q get "$_package.$_section.$_name") || _value=$_default
		case $_type in
		bool)
			case $_value in
			1 | on | true | yes | enabled) _value=1 ;;
			0 | off | false | no | disabled) _value=0 ;;
			'') ;;
			*) _result=1 ;;
			esac
			;;
		uinteger | port) case $_value in *[!0-9]*) _result=1 ;; esac ;;
		or\(*) case $_type in *"\"$_value\""*) ;; *) [ -z "$_value" ] || _result=1 ;; esac ;;
		esac
		[ "$_type" != port ] || [ "${_value:-0}" -le 65535 ] 2>/dev/null || _result=1
		eval "$_name=\$_value"
	done
	[ "$_result" -eq 0 ] || echo "validation failed for $_package.$_section" >&2
	"$_function" "$_section" "$_result"
}
