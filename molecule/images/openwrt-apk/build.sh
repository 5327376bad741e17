#!/bin/sh
# A router with apk, OpenWrt from 25.12 on. How it is made stands in openwrt/router.sh.
set -eu
. ./lib.sh
. ./openwrt/router.sh

build_router apk 25.12.0
