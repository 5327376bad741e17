#!/bin/sh
# WANT_JSON
# A service starts at boot or not, and runs or not. Its options: openwrt_service.yml.
#
# Asks procd whether it runs: an init script's own status says "running" for a service whose process has ended.

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

# act WORD: calls the init script with it, and notes it in did.
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

is_spared() { case " $spared " in *" $(cat "/proc/$1/comm" 2>/dev/null) "*) ;; *) return 1 ;; esac }

# renewable: prints the processes that a renewal ends.
renewable() {
    for pid in $(about pid); do is_spared "$pid" || echo "$pid"; done
}

# runs: whether all instances run; if some programs are spared and the service has to be started, others must run, too.
runs() {
    case $(about running) in '' | *false*) return 1 ;; esac
    [ -z "$spared" ] || [ "$state" != started ] || [ -n "$(renewable)" ]
}

# lives: whether any instance runs.
lives() {
    case $(about running) in *true*) ;; *) return 1 ;; esac
}

# since PID: when a process was started, in 1/100 s since boot: the 20th field after the command's closing bracket.
since() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

# gone: whether all processes that a renewal was to end have ended. One that takes a while (procd gives it five seconds) is
# still listed as running.
gone() {
    for pid in $former; do [ ! -d "/proc/$pid" ] || return 1; done
}

# replace: ends all processes but the spared ones. At once: a logread that has lost its logd ignores a SIGTERM.
replace() {
    former=$(renewable)
    # shellcheck disable=SC2086 # numbers
    [ -z "$former" ] || kill -9 $former 2>/dev/null
    for _ in 1 2 3 4 5; do
        ! gone || break
        sleep 1
    done
}

# renew: restarts the service. procd's start leaves spared programs alone, unless their command line has changed.
renew() {
    former=$(renewable)
    if [ -z "$spared" ]; then
        act restart
        return
    fi
    [ "$_ansible_check_mode" = 1 ] || replace
    act start
}

# deaf: prints the processes that have the socket of a logd that has ended, and their parents: a jail mounts /dev/log once,
# when it starts; procd knows the jail, not the process in it.
deaf() {
    grep -ls '//deleted /dev/log ' /proc/[0-9]*/mountinfo | while read -r file; do
        pid=${file#/proc/} pid=${pid%/*}
        echo "$pid" "$(awk '$1 == "PPid:" { print $2 }' "/proc/$pid/status" 2>/dev/null)"
    done
}

# is_deaf: whether one of the service's processes is among those.
is_deaf() {
    all_deaf=" $(deaf | tr '\n' ' ') "
    for pid in $(about pid); do
        case $all_deaf in *" $pid "*) return 0 ;; esac
    done
    return 1
}

# is_behind: whether a process is older than a spared one. A logread may wait for ever for the answer of a former logd.
is_behind() {
    [ -n "$spared" ] || return 1
    for pid in $(about pid); do
        is_spared "$pid" || continue
        for other in $(renewable); do
            [ "$(since "$other")" -lt "$(since "$pid")" ] 2>/dev/null && return 0
        done
    done
    return 1
}

# is_outdated: whether the caller says so, a file of config is newer than a process, or it is deaf or behind.
is_outdated() {
    [ "$renewed" != 1 ] && ! is_deaf && ! is_behind || return 0
    boot=$(awk '/^btime/ { print $2 }' /proc/stat)
    for pid in $(renewable); do
        ticks=$(since "$pid")
        [ -n "$ticks" ] || continue
        for file in $config; do
            [ -f "$file" ] && [ "$(date -r "$file" +%s)" -gt $((boot + ticks / 100 + 1)) ] && return 0
        done
    done
    return 1
}

if [ ! -x "$script" ]; then
    case $state in
    # A service that is not installed is not started.
    stopped | refreshed) finish ;;
    esac
    # In check mode its package may not be installed yet.
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
    elif is_outdated; then
        renew
    fi
    ;;
stopped) ! lives || act stop ;;
refreshed) ! lives || ! is_outdated || renew ;;
'') finish ;;
*) finish "state is '$state': it takes started, stopped or refreshed." ;;
esac
[ "$_ansible_check_mode" != 1 ] && [ $changed = 1 ] && [ "$state" != stopped ] || finish

# A process that can't use its configuration ends within a moment, so it has to be seen running twice.
seen=0
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
    if is_behind; then
        replace
        "$script" start
    fi
    if gone && runs; then seen=$((seen + 1)); else seen=0; fi
    [ $seen -lt 2 ] || break
    sleep 1
done
[ $seen = 2 ] || finish "$name does not stay up. It said: $(logread -l 200 | grep "$name" | tail -n 5)"

# A restarted logd has a new socket. Jailed services, as dnsmasq, have the old one.
if [ "$name" = log ] && [ -n "$(deaf)" ]; then
    for other in /etc/init.d/*; do
        name=${other##*/}
        ! is_deaf || "$other" restart >/dev/null 2>&1
    done
fi
finish
