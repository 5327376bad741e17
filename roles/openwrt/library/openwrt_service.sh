#!/bin/sh
# WANT_JSON
# A service starts at boot or not, and runs or not.
#
#   name      the init script's name
#   enabled   whether it starts at boot (optional)
#   state     started, stopped, restarted or reloaded (optional)
#   instance  the instance that has to run, where a service has several (optional)
#   config    files that it reads at its start: one that is newer than the process means a restart (optional), so that a
#             run that was interrupted before its restart is mended by the next
#
# Whether it runs is asked from procd: an init script's own status says "running" of a service whose process has died.

# shellcheck source=/dev/null
. /usr/share/libubox/jshn.sh
name='' enabled='' state='' instance='' config='' _ansible_check_mode=''
json_load_file "$1"
json_get_vars name enabled state instance _ansible_check_mode
json_get_values config config
script="/etc/init.d/$name" changed=0 did=''

finish() {
    json_init
    json_add_boolean changed $changed
    json_add_string did "${did# }"
    if [ -n "$1" ]; then
        json_add_boolean failed 1
        json_add_string msg "$1"
    fi
    json_dump
    exit 0
}

# act WORD: has the init script do it, and remembers.
act() {
    changed=1 did="$did $1"
    [ "$_ansible_check_mode" != 1 ] || return 0
    said=$("$script" "$1" 2>&1) || case $1 in
        # rc.common's enable and disable answer with the state of links.
        enable | disable) ;;
        *) finish "$script $1 failed: $said" ;;
    esac
}

# Without an instance given, one that runs is enough.
instance=${instance:+"['$instance']"}
about() {
    ubus call service list "{\"name\":\"$name\"}" |
        jsonfilter -e "@['$name'].instances${instance:-.*}.$1" 2>/dev/null
}
runs() { about running | grep -q true; }

# outdated: whether a file of config was written after the process was started.
outdated() {
    pid=$(about pid | head -n 1)
    [ -r "/proc/$pid/stat" ] || return 1
    # Fields after the command's closing bracket: starttime is the 20th, in clock ticks (1/100 s) since boot.
    started=$(sed 's/.*) //' "/proc/$pid/stat" | awk -v boot="$(awk '/^btime/ { print $2 }' /proc/stat)" '{ print boot + int($20 / 100) }')
    for file in $config; do
        [ -f "$file" ] && [ "$(date -r "$file" +%s)" -gt "$((started + 1))" ] && return 0
    done
    return 1
}

if [ ! -x "$script" ]; then
    # In check mode the package that brings it may be yet to come.
    if [ "$_ansible_check_mode" = 1 ]; then changed=1 did=' start'; finish; fi
    finish "There is no $script on this router: is its package installed?"
fi

case $enabled in
1) "$script" enabled || act enable ;;
0) ! "$script" enabled || act disable ;;
esac

case $state in
started)
    if ! runs; then
        act start
    elif outdated; then
        act restart
    fi
    ;;
stopped) ! runs || act stop ;;
restarted) act restart ;;
reloaded) act reload ;;
'') finish ;;
*) finish "state is '$state': it takes started, stopped, restarted or reloaded." ;;
esac
[ "$_ansible_check_mode" != 1 ] || finish

# A process that dies of its configuration does so within a moment: it has to be seen running twice.
case $state in
started | restarted | reloaded)
    [ "$changed" = 1 ] || finish
    seen=0
    for _ in 1 2 3 4 5 6 7 8; do
        if runs; then seen=$((seen + 1)); else seen=0; fi
        [ $seen -lt 2 ] || finish
        sleep 1
    done
    finish "$name does not stay up. It said: $(logread -l 200 | grep "$name" | tail -n 5)"
    ;;
esac
finish
