#!/bin/sh
# WANT_JSON
# Options of the router's configuration have these values. Its options: openwrt_uci.yml.

# shellcheck source=/dev/null
. /usr/share/libubox/jshn.sh
config='' section='' directory='' names='' type='' items='' value='' _ansible_check_mode=''
json_load_file "$1"
json_get_vars config section directory _ansible_check_mode
directory=${directory:-/etc/config}
before='' after='' batch=''

fail() {
    json_init
    json_add_boolean failed 1
    json_add_string msg "$1"
    json_dump
    exit 0
}

# quote TEXT: as `uci show` prints it and `uci batch` reads it.
quote() { printf "'%s'" "$(printf '%s.' "$1" | sed "s/'/'\\\\''/g" | sed '$s/\.$//')"; }

run_uci() { uci -q -c "$directory" "$@"; }

[ -n "$config" ] && [ -n "$section" ] || fail "config and section are needed."
[ -e "$directory/$config" ] || fail "There is no $directory/$config on this router."
run_uci get "$config.$section" >/dev/null || fail "$directory/$config has no section $section."
# A commit would save somebody else's changes, too.
[ -z "$(run_uci changes "$config")" ] ||
    fail "The router has uncommitted changes of $config: see which (uci changes $config), then save or drop them (uci commit or uci revert $config)."

json_select options || fail "options is needed: a dictionary."
json_get_keys names
for name in $names; do
    case $name in *[!A-Za-z0-9_]*) fail "'$name' is no name of an option." ;; esac
    path="$config.$section.$name"
    json_get_type type "$name"
    present=$(run_uci show "$path")
    present=${present#*=}
    wanted='' commands=''
    case $type in
    array)
        json_select "$name"
        json_get_keys items
        commands="${present:+delete $path
}"
        for item in $items; do
            json_get_var value "$item"
            wanted="$wanted $(quote "$value")"
            commands="${commands}add_list $path=$(quote "$value")
"
        done
        json_select ..
        wanted=${wanted# }
        ;;
    object) fail "$name: a value is a text, a number, a boolean, a list or null." ;;
    *)
        value=''
        [ "$type" = null ] || json_get_var value "$name"
        # uci keeps no empty option.
        if [ -n "$value" ]; then
            wanted=$(quote "$value")
            commands="set $path=$wanted
"
        else
            commands="delete $path
"
        fi
        ;;
    esac
    [ "$present" != "$wanted" ] || continue
    before="$before${present:+$name=$present
}"
    after="$after${wanted:+$name=$wanted
}"
    batch="$batch$commands"
done
json_select ..

if [ -n "$batch" ] && [ "$_ansible_check_mode" != 1 ]; then
    said=$(printf '%s' "$batch" | uci -c "$directory" batch 2>&1)
    if [ -n "$said" ] || ! said=$(uci -c "$directory" commit "$config" 2>&1); then
        run_uci revert "$config"
        fail "uci does not take this for $config.$section: $said"
    fi
fi

json_init
json_add_boolean changed "$([ -n "$batch" ] && echo 1 || echo 0)"
json_add_object diff
json_add_string before_header "$config.$section"
json_add_string after_header "$config.$section"
json_add_string before "$before"
json_add_string after "$after"
json_close_object
json_dump
