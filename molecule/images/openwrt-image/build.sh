#!/bin/sh
# A router from the image that WRTFLOW_OPENWRT_IMAGE names, a root file system of OpenWrt. openwrt/router.sh makes it.
set -eu
. ./lib.sh
. ./openwrt/router.sh

build_router_of "$WRTFLOW_OPENWRT_IMAGE"
