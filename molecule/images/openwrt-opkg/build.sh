#!/bin/sh
# A router with opkg, OpenWrt up to 24.10. How it is made stands in openwrt/router.sh.
set -eu
. ./lib.sh
. ./openwrt/router.sh

build_router opkg 23.05.5
