#!/bin/sh
# Lists all that wrtflow could change on a router: options, files with mode and content, packages, kernel settings,
# nftables, what runs.
uci show
{
    find /etc /usr /lib /root /overlay ! -type d 2>/dev/null
    find /tmp/ -name '*wrtflow*'
} | sort | xargs ls -ld | awk '{ print $1, $9, $10, $11 }'
find /etc /usr /lib /root /overlay -type f 2>/dev/null | sort | xargs md5sum
find /etc /usr/lib /usr/share /root -type d | sort
if command -v apk >/dev/null; then apk info; else opkg list-installed; fi
for setting in acct timestamp events; do echo "$setting $(cat /proc/sys/net/netfilter/nf_conntrack_$setting)"; done
nft list tables
ubus call service list | jsonfilter -e '@.*.instances.*.command' | sort
