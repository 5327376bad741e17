#!/bin/sh
# A router with opkg: OpenWrt up to 24.10. openwrt/router.sh makes it.
set -eu
. ./lib.sh
. ./openwrt/router.sh

build_router opkg 23.05.5
