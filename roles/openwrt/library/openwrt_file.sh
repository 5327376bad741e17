#!/bin/sh
# WANT_JSON
# A file has this content and mode, or is gone.
#
#   dest      path
#   content   text (needed when present); at most some 100 KB: it travels through jshn
#   mode      octal, as text (default 0644)
#   state     present (default) or absent
#
# Written beside its place and renamed: a power cut leaves the old file or the new one.

# shellcheck source=/dev/null
. /usr/share/libubox/jshn.sh
dest='' content='' mode='' state='' _ansible_check_mode=''
json_load_file "$1"
json_get_vars dest content mode state _ansible_check_mode
mode=${mode:-0644} state=${state:-present}

fail() {
    json_init
    json_add_boolean failed 1
    json_add_string msg "$1"
    json_dump
    exit 0
}

# perms FILE: its mode in octal; the base image has no stat.
perms() {
    # shellcheck disable=SC2012 # one known file
    ls -ld "$1" | awk '{
        for (i = 0; i < 3; i++) {
            x = substr($1, 4 + 3 * i, 1); t = x ~ /[sStT]/ ? 2 ^ (2 - i) : 0; special += t
            digits = digits (4 * (substr($1, 2 + 3 * i, 1) == "r") + 2 * (substr($1, 3 + 3 * i, 1) == "w") + (x ~ /[xst]/))
        }
        print special digits
    }'
}

# A command substitution would eat trailing newlines.
whole() { [ ! -f "$1" ] || { cat "$1"; }; printf x; }

[ -n "$dest" ] || fail "dest is needed."
[ ! -d "$dest" ] || fail "$dest is a folder."
before='' before_mode=''
if [ -f "$dest" ]; then
    before=$(whole "$dest")
    before=${before%x}
    before_mode=$(perms "$dest")
fi

case $state in
present)
    [ -d "${dest%/*}/" ] || [ "$_ansible_check_mode" = 1 ] || mkdir -p "${dest%/*}" || fail "${dest%/*} can't be made."
    case $mode in [0-7][0-7][0-7]) mode=0$mode ;; [0-7][0-7][0-7][0-7]) ;; *) fail "mode is '$mode': it takes octal digits, as 0644." ;; esac
    after=$content after_mode=$mode
    changed=0
    [ -f "$dest" ] && [ "$before" = "$after" ] && [ "$before_mode" = "$mode" ] || changed=1
    if [ $changed = 1 ] && [ "$_ansible_check_mode" != 1 ]; then
        new="$dest.wrtflow-new"
        if ! { (umask 077 && printf '%s' "$content" >"$new") && chmod "$mode" "$new" && mv "$new" "$dest"; }; then
            rm -f "$new"
            fail "$dest can't be written: is the file system full or read-only?"
        fi
    fi
    ;;
absent)
    after='' after_mode='' changed=0
    if [ -e "$dest" ]; then
        changed=1
        [ "$_ansible_check_mode" = 1 ] || rm -f "$dest" || fail "$dest can't be removed."
    fi
    ;;
*) fail "state is '$state': it takes present or absent." ;;
esac

json_init
json_add_boolean changed $changed
json_add_object diff
json_add_string before_header "$dest${before_mode:+ ($before_mode)}"
json_add_string after_header "$dest${after_mode:+ ($after_mode)}"
if [ $changed = 1 ]; then
    json_add_string before "$before"
    json_add_string after "$after"
else
    json_add_string before ''
    json_add_string after ''
fi
json_close_object
json_dump
