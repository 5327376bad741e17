#!/bin/sh
# WANT_JSON
# A service starts at boot or not, and runs or not. What it takes: openwrt_service.yml.
#
# Whether it runs is asked from procd: an init script's own status says "running" of a service whose process has died.

# shellcheck source=/dev/null
. /usr/share/libubox/jshn.sh
name='' enabled='' state='' config='' renewed='' spared='' _ansible_check_mode=''
json_load_file "$1"
json_get_vars name enabled state renewed _ansible_check_mode
json_get_values config config
json_get_values spared spared
script="/etc/init.d/$name" changed=0 did='' former=''

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

about() {
    ubus call service list "{\"name\":\"$name\"}" | jsonfilter -e "@['$name'].instances[*].$1" 2>/dev/null
}
# runs: whether all that procd has been told to keep running does.
runs() {
    case $(about running) in '' | *false*) return 1 ;; esac
}
# lives: whether any of it does.
lives() {
    case $(about running) in *true*) ;; *) return 1 ;; esac
}

# renewable: the processes that a renewal is for.
renewable() {
    for pid in $(about pid); do
        case " $spared " in *" $(cat "/proc/$pid/comm" 2>/dev/null) "*) ;; *) echo "$pid" ;; esac
    done
}

# anew: whether none of the processes is left that were renewed. One that takes its time (procd gives it five seconds) is
# still said to be running.
anew() {
    for pid in $former; do [ ! -d "/proc/$pid" ] || return 1; done
}

# renew: where some are spared, the others are ended and started: procd's start leaves alone what runs and has not changed.
renew() {
    former=$(renewable)
    if [ -z "$spared" ]; then
        act restart
        return
    fi
    if [ "$_ansible_check_mode" != 1 ]; then
        # shellcheck disable=SC2086 # numbers
        kill $former 2>/dev/null
        for _ in 1 2 3 4 5; do
            ! anew || break
            sleep 1
        done
        # shellcheck disable=SC2086 # numbers
        anew || kill -9 $former 2>/dev/null
    fi
    act start
}

# deaf: whether one of its processes, or what such a one runs in a jail, has the socket of a log that is no more: a jail has
# a mount of the socket that was there at its start.
deaf() {
    files=$(grep -ls '//deleted /dev/log ' /proc/[0-9]*/mountinfo)
    for file in $files; do
        pid=${file#/proc/} pid=${pid%/*}
        for each in $pid $(awk '$1 == "PPid:" { print $2 }' "/proc/$pid/status" 2>/dev/null); do
            case " $(about pid | tr '\n' ' ')" in *" $each "*) return 0 ;; esac
        done
    done
    return 1
}

# outdated: whether it was said to be so, a file of config was written after a process was started, or it is deaf.
outdated() {
    [ "$renewed" != 1 ] && ! deaf || return 0
    for pid in $(renewable); do
        [ -r "/proc/$pid/stat" ] || continue
        # Fields after the command's closing bracket: starttime is the 20th, in clock ticks (1/100 s) since boot.
        started=$(sed 's/.*) //' "/proc/$pid/stat" | awk -v boot="$(awk '/^btime/ { print $2 }' /proc/stat)" '{ print boot + int($20 / 100) }')
        for file in $config; do
            [ -f "$file" ] && [ "$(date -r "$file" +%s)" -gt "$((started + 1))" ] && return 0
        done
    done
    return 1
}

if [ ! -x "$script" ]; then
    case $state in
    # What is not there neither runs nor is it refreshed.
    stopped | refreshed) finish ;;
    esac
    # In check mode the package that brings it may be yet to come.
    [ "$_ansible_check_mode" = 1 ] || finish "There is no $script on this router: is its package installed?"
    changed=1 did=' start'
    finish
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
        renew
    fi
    ;;
stopped) ! lives || act stop ;;
refreshed) ! lives || ! outdated || renew ;;
'') finish ;;
*) finish "state is '$state': it takes started, stopped or refreshed." ;;
esac
[ "$_ansible_check_mode" != 1 ] && [ $changed = 1 ] && [ "$state" != stopped ] || finish

# A process that dies of its configuration does so within a moment: it has to be seen running twice.
seen=0
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
    if anew && runs; then seen=$((seen + 1)); else seen=0; fi
    [ $seen -lt 2 ] || finish
    sleep 1
done
finish "$name does not stay up. It said: $(logread -l 200 | grep "$name" | tail -n 5)"
