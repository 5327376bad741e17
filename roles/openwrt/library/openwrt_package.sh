#!/bin/sh
# WANT_JSON
# Packages are installed or removed, with opkg or apk, whichever the router has. Its options: openwrt_package.yml.

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

# explain OUTPUT: says what went wrong and what to do, from the package manager's output. (Of apk's wget, that has only the exit
# status: 4 no connection, 5 no trust, 8 the server's refusal.)
explain() {
    case $1 in
    *"available on filesystem"* | *"No space left"* | *"no space left"*)
        echo "There is no room for $todo on the router ($(df -Pk /overlay / 2>/dev/null | awk 'NR == 2 { print $4 }') KiB free). Remove packages, or move the overlay to a USB stick (extroot)." ;;
    *"not yet valid"* | *"expired"* | *"wget returned 5"* | *"exited with error 5"* | *"Signature check failed"* | *"BAD signature"* | *"UNTRUSTED"*)
        echo "The router does not trust its package feed. Its clock says $(date -u '+%Y-%m-%d %H:%M') UTC: if that is wrong, see that NTP reaches a time server, then run again. If it is right, the router lacks the key (/etc/opkg/keys or /etc/apk/keys) or the certificates (ca-bundle) of that feed." ;;
    *"Signature file download failed"*)
        echo "The router got the list of its package feed, but not the signature of that list (Packages.sig), so that opkg ignores the feed. See below why: wget returns 4 where the connection fails, and 8 where the server does not have the file." ;;
    *"Failed to download"* | *"wget returned"* | *"wget: exited"* | *"temporary error"* | *"network error"* | *"could not connect"* | *"DNS"*)
        echo "The router does not reach its package feed. See that it resolves names and has a way out (nslookup and ping on the router), and that the feeds in /etc/opkg or /etc/apk still exist." ;;
    *"Unknown package"* | *"no such package"* | *"Cannot install package"* | *"unable to select"*)
        echo "The router's feed does not have one of: $todo. See that all feeds are enabled; a snapshot whose feed has moved on has to be upgraded first." ;;
    *)
        echo "The package manager failed." ;;
    esac
    # Without the lines of successes: opkg prints a feed's fault long before that of a package.
    echo "It said: $(printf '%s' "$1" | grep -vE '^(Downloading |Updated list |Signature check passed|fetch |Collected errors:| \[|$)' | tail -n 15)"
}

todo=
for package in $names; do
    case $state in
    present) is_installed "$package" || todo="$todo $package" ;;
    # In reverse order: a package comes after those that it needs, and opkg refuses to remove a package that another one needs.
    absent) is_installed "$package" && todo="$package $todo" ;;
    *) finish 0 "state is '$state': it takes present or absent." ;;
    esac
done
todo=${todo# } todo=${todo% }
[ -n "$todo" ] || finish 0
[ "$_ansible_check_mode" != 1 ] || finish 1

# shellcheck disable=SC2086 # a list of packages
if [ "$state" = absent ]; then
    said=$(remove $todo 2>&1) || finish 0 "$(explain "$said")"
else
    # update's output matters only if the packages can't be installed: a feed out of reach may be one that nobody needs, and opkg
    # does not fail for a feed that it does not trust.
    said="$(update 2>&1)
$(add $todo 2>&1)" || finish 0 "$(explain "$said")"
    for package in $todo; do
        is_installed "$package" || finish 0 "$(explain "$said")"
    done
fi
finish 1
