#!/bin/sh
# WANT_JSON
# Notes on the router how everything was before the first change, or reads that note. Its options: openwrt_former.yml.
#
# The note (former) has one item a line: KIND NAME VALUE. Files are copied into former.d.

# shellcheck source=/dev/null
. /usr/share/libubox/jshn.sh
directory='' state='' uci='' sysctls='' services='' packages='' files='' _ansible_check_mode=''
json_load_file "$1"
json_get_vars directory state _ansible_check_mode
for kind in uci sysctls services packages files; do json_get_values $kind $kind; done
directory=${directory:-/etc/wrtflow} state=${state:-noted}
note=$directory/former copies=$directory/former.d

fail() {
    json_init
    json_add_boolean failed 1
    json_add_string msg "$1"
    json_dump
    exit 0
}

# value KIND NAME: prints an item's present value; nothing if it is missing.
value() {
    case $1 in
    uci) uci -q get "$2" ;;
    sysctl) cat "/proc/sys/$(echo "$2" | tr . /)" 2>/dev/null ;;
    package)
        if command -v apk >/dev/null; then apk info -e "$2" >/dev/null 2>&1; else opkg list-installed | grep -q "^$2 - "; fi && echo installed
        ;;
    service)
        [ -x "/etc/init.d/$2" ] || return 0
        "/etc/init.d/$2" enabled && echo enabled || echo disabled
        ;;
    file) [ ! -f "$2" ] || echo copied ;;
    esac
}

# to_note: prints a line for each item that is not noted yet.
to_note() {
    for kind in uci sysctl service package file; do
        case $kind in uci) names=$uci ;; sysctl) names=$sysctls ;; service) names=$services ;; package) names=$packages ;; file) names=$files ;; esac
        for name in $names; do
            [ "$(awk -v kind="$kind" -v name="$name" '$1 == kind && $2 == name' "$note" 2>/dev/null)" ] ||
                echo "$kind $name $(value $kind "$name")"
        done
    done
}

noted() {
    lines=$(to_note)
    if [ -n "$lines" ] && [ "$_ansible_check_mode" != 1 ]; then
        mkdir -p "$copies" || fail "$directory can't be made."
        chmod 700 "$directory"
        echo "$lines" | while read -r kind name was; do
            [ "$kind $was" = 'file copied' ] || continue
            mkdir -p "$copies${name%/*}" && cp -p "$name" "$copies$name" || exit 1
        done || fail "$copies can't be written: is the file system full?"
        if ! { { cat "$note" 2>/dev/null; echo "$lines"; } >"$note.new" && mv "$note.new" "$note"; }; then
            fail "$note can't be written: is the file system full?"
        fi
    fi
    json_init
    json_add_boolean changed "$([ -n "$lines" ] && echo 1 || echo 0)"
    json_add_object diff
    json_add_string before_header "$note"
    json_add_string after_header "$note"
    json_add_string before ''
    json_add_string after "${lines:+$lines
}"
    json_close_object
    json_dump
}

# equal FILE: whether a configuration has the same options as its copy. The file can differ: uci drops comments and blank
# lines, and puts an option that was deleted and set again at the end of its section.
equal() {
    case $1 in /etc/config/*) ;; *) return 1 ;; esac
    [ "$(uci -q show "${1##*/}" | sort)" = "$(uci -q -c "$copies/etc/config" show "${1##*/}" | sort)" ]
}

read_again() {
    json_init
    json_add_boolean changed 0
    json_add_boolean noted "$([ -f "$note" ] && echo 1 || echo 0)"
    json_add_array former
    [ ! -f "$note" ] || while read -r kind name was; do
        json_add_object ""
        json_add_string kind "$kind"
        json_add_string name "$name"
        json_add_string was "$was"
        if [ "$kind $was" = 'file copied' ]; then
            content=$(cat "$copies$name" && printf x)
            json_add_string content "${content%x}"
            json_add_boolean equal "$(equal "$name" && echo 1 || echo 0)"
        fi
        json_close_object
    done <"$note"
    json_close_array
    json_dump
}

case $state in
noted) noted ;;
read) read_again ;;
*) fail "state is '$state': it takes noted or read." ;;
esac
