#!/bin/sh
# WANT_JSON
# A kernel setting has this value, now and after every boot.
#
#   name    as net.netfilter.nf_conntrack_acct
#   value   the value
#   file    where it is kept (default /etc/sysctl.d/60-wrtflow.conf)
#   state   present (default) or absent: no longer kept; the kernel's present value stays
#
# Only the line of this name is touched.

# shellcheck source=/dev/null
. /usr/share/libubox/jshn.sh
name='' value='' file='' state='' _ansible_check_mode=''
json_load_file "$1"
json_get_vars name value file state _ansible_check_mode
file=${file:-/etc/sysctl.d/60-wrtflow.conf} state=${state:-present}
path=/proc/sys/$(echo "$name" | tr . /)

fail() {
    json_init
    json_add_boolean failed 1
    json_add_string msg "$1"
    json_dump
    exit 0
}

case $name in '' | *[!a-z0-9_.-]*) fail "'$name' is no name of a kernel setting." ;; esac
kept=$(sed -n "s/^$name *= *//p" "$file" 2>/dev/null | tail -n 1)
live=$(cat "$path" 2>/dev/null)
case $state in
present)
    [ -n "$value" ] || fail "value is needed."
    [ -e "$path" ] || [ "$_ansible_check_mode" = 1 ] || fail "This kernel has no $name: is the module that brings it loaded?"
    ;;
absent) value='' ;;
*) fail "state is '$state': it takes present or absent." ;;
esac

changed=0
[ "$kept" = "$value" ] || changed=1
[ "$state" = absent ] || [ "$live" = "$value" ] || changed=1
if [ $changed = 1 ] && [ "$_ansible_check_mode" != 1 ]; then
    mkdir -p "${file%/*}"
    { grep -v "^$name *=" "$file" 2>/dev/null; [ -z "$value" ] || echo "$name=$value"; } >"$file.new"
    mv "$file.new" "$file"
    [ -s "$file" ] || rm -f "$file"
    [ -z "$value" ] || [ "$live" = "$value" ] || { echo "$value" >"$path"; } 2>/dev/null ||
        fail "The kernel does not take $value for $name."
fi

json_init
json_add_boolean changed $changed
json_add_object diff
json_add_string before_header "$name"
json_add_string after_header "$name"
json_add_string before "kept: ${kept:-no}, now: $live
"
json_add_string after "kept: ${value:-no}, now: ${value:-$live}
"
json_close_object
json_dump
