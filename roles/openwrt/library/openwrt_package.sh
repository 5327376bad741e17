#!/bin/sh
# WANT_JSON
# Packages are installed or removed, with opkg or apk, whichever the router has.
#
#   name    names of packages
#   state   present (default) or absent
#
# The package lists are updated only when something is to be installed: on a router they live in memory.

# shellcheck source=/dev/null
. /usr/share/libubox/jshn.sh
names='' state='' _ansible_check_mode=''
json_load_file "$1"
json_get_values names name
json_get_vars state _ansible_check_mode
state=${state:-present}

# finish CHANGED [MESSAGE]: prints the answer; with a message it is a failure.
finish() {
    json_init
    json_add_boolean changed "$1"
    if [ -n "$2" ]; then
        json_add_boolean failed 1
        json_add_string msg "$2"
    fi
    json_add_array packages
    for package in $todo; do json_add_string "" "$package"; done
    json_close_array
    json_dump
    exit 0
}

if command -v apk >/dev/null; then
    is_installed() { apk info -e "$1" >/dev/null 2>&1; }
    update() { apk update; }
    add() { apk add "$@"; }
    remove() { apk del "$@"; }
elif command -v opkg >/dev/null; then
    is_installed() { opkg list-installed | grep -q "^$1 - "; }
    update() { opkg update; }
    add() { opkg install "$@"; }
    remove() { opkg remove --autoremove "$@"; }
else
    finish 0 "The router has neither opkg nor apk: is this OpenWrt?"
fi

# explain OUTPUT: says what went wrong, and what to do, from what the package manager printed.
explain() {
    case $1 in
    *"available on filesystem"* | *"No space left"* | *"no space left"*)
        echo "There is no room for $todo on the router ($(df -Pk /overlay / 2>/dev/null | awk 'NR == 2 { print $4 }') KB free). Remove packages, or use extroot." ;;
    *"not yet valid"* | *"certificate has expired"* | *"Signature check failed"* | *"BAD signature"*)
        echo "The router does not trust its package feed; its clock says $(date -u +%Y-%m-%d). Set the time (is NTP reachable?), then run again." ;;
    *"Unknown package"* | *"no such package"* | *"Cannot install package"*)
        echo "The router's feed does not have one of: $todo. Is this release still supported, and are all feeds enabled?" ;;
    *"Failed to download"* | *"wget returned"* | *"temporary error"* | *"network error"* | *"could not connect"* | *"unable to fetch"* | *"DNS"*)
        echo "The router does not reach its package feed. Does it resolve names and have a way out?" ;;
    *)
        echo "The package manager failed." ;;
    esac
    echo "It said: $(printf '%s' "$1" | tail -n 5)"
}

todo=
for package in $names; do
    case $state in
    present) is_installed "$package" || todo="$todo $package" ;;
    absent) is_installed "$package" && todo="$todo $package" ;;
    *) finish 0 "state is '$state': it takes present or absent." ;;
    esac
done
todo=${todo# }
[ -n "$todo" ] || finish 0
[ "$_ansible_check_mode" != 1 ] || finish 1

# shellcheck disable=SC2086 # a list of packages
if [ "$state" = absent ]; then
    said=$(remove $todo 2>&1) || finish 0 "$(explain "$said")"
else
    said=$(update 2>&1) || finish 0 "$(explain "$said")"
    said=$(add $todo 2>&1) || finish 0 "$(explain "$said")"
    for package in $todo; do
        is_installed "$package" || finish 0 "$(explain "$said")"
    done
fi
finish 1
