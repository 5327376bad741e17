#!/bin/sh
# WANT_JSON
# A file has this content and mode, has or lacks lines, or is gone. Its options: openwrt_file.yml.
#
# The file is written beside its place and renamed: after a power cut there is the old file or the new one.

# shellcheck source=/dev/null
. /usr/share/libubox/jshn.sh
dest='' content='' mode='' state='' type='' items='' line='' _ansible_check_mode=''
json_load_file "$1"
json_get_vars dest content mode state _ansible_check_mode
json_get_type type lines
state=${state:-present}

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

[ -n "$dest" ] || fail "dest is needed."
case $state in present | absent) ;; *) fail "state is '$state': it takes present or absent." ;; esac
case $mode in
'' | [0-7][0-7][0-7][0-7]) ;;
[0-7][0-7][0-7]) mode=0$mode ;;
*) fail "mode is '$mode': it takes octal digits, as 0644." ;;
esac
before='' before_mode=''
if [ -d "$dest" ]; then
    [ "$state" = absent ] || fail "$dest is a folder."
    before_mode=folder
elif [ -e "$dest" ]; then
    # A command substitution alone would eat trailing newlines.
    before=$(cat "$dest" && printf x)
    before=${before%x}
    before_mode=$(perms "$dest")
fi

# The wanted state: a file with this content and mode; with an empty mode, no file.
after=$content after_mode=${mode:-${before_mode:-0644}}
if [ "$type" = array ]; then
    newline='
'
    after=$before
    [ -z "$after" ] || [ "${after%"$newline"}" != "$after" ] || after=$after$newline
    json_select lines
    json_get_keys items
    for item in $items; do
        json_get_var line "$item"
        if [ "$state" = absent ]; then
            after=$(printf '%s' "$after" | grep -vxF -e "$line"; printf x)
            after=${after%x}
        else
            printf '%s' "$after" | grep -qxF -e "$line" || after=$after$line$newline
        fi
    done
    json_select ..
    [ -n "$before_mode" ] || [ "$state" = present ] || after_mode=
elif [ "$state" = absent ]; then
    after='' after_mode=
fi

changed=0
[ "$before" = "$after" ] && [ "$before_mode" = "$after_mode" ] || changed=1
if [ $changed = 1 ] && [ "$_ansible_check_mode" != 1 ]; then
    if [ -z "$after_mode" ]; then
        rm -rf "$dest" || fail "$dest can't be removed."
    else
        new="$dest.wrtflow-new"
        [ -d "${dest%/*}/" ] || mkdir -p "${dest%/*}" || fail "${dest%/*} can't be made."
        if ! { (umask 077 && printf '%s' "$after" >"$new") && chmod "$after_mode" "$new" && mv "$new" "$dest"; }; then
            rm -f "$new"
            fail "$dest can't be written: is the file system full or read-only?"
        fi
    fi
fi

json_init
json_add_boolean changed $changed
json_add_object diff
json_add_string before_header "$dest${before_mode:+ ($before_mode)}"
json_add_string after_header "$dest${after_mode:+ ($after_mode)}"
[ $changed = 1 ] || before='' after=''
json_add_string before "$before"
json_add_string after "$after"
json_close_object
json_dump
