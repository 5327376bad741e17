#!/bin/sh
# WANT_JSON
# A kernel setting has this value, now and after every boot. Its options: openwrt_sysctl.yml.

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
before=$(sed -n "s/^$name *= *//p" "$file" 2>/dev/null | tail -n 1)
live=$(cat "$path" 2>/dev/null)
case $state in
present)
    [ -n "$value" ] || fail "value is needed."
    [ -e "$path" ] || [ "$_ansible_check_mode" = 1 ] || fail "This kernel has no $name: is the module that brings it loaded?"
    after=$value
    ;;
absent) after='' ;;
*) fail "state is '$state': it takes present or absent." ;;
esac
wanted=${value:-$live}

changed=0
[ "$before" = "$after" ] && [ "$live" = "$wanted" ] || changed=1
if [ $changed = 1 ] && [ "$_ansible_check_mode" != 1 ]; then
    mkdir -p "${file%/*}"
    # Only the line of this name is touched.
    { grep -v "^$name *=" "$file" 2>/dev/null; [ -z "$after" ] || echo "$name=$after"; } >"$file.new"
    mv "$file.new" "$file"
    [ -s "$file" ] || rm -f "$file"
    [ "$live" = "$wanted" ] || { echo "$wanted" >"$path"; } 2>/dev/null ||
        fail "The kernel does not take $wanted for $name. In a container: is /proc/sys writable?"
fi

json_init
json_add_boolean changed $changed
json_add_object diff
json_add_string before_header "$name"
json_add_string after_header "$name"
json_add_string before "kept: ${before:-no}, now: $live
"
json_add_string after "kept: ${after:-no}, now: $wanted
"
json_close_object
json_dump
