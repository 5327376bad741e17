#!/bin/sh
# A router with apk: OpenWrt 25.12 and newer. openwrt/router.sh makes it.
set -eu
. ./lib.sh
. ./openwrt/router.sh

build_router apk 25.12.0
