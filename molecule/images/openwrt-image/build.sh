#!/bin/sh
# A router of the image that WRTFLOW_OPENWRT_IMAGE names: a root file system of OpenWrt. How it is made stands in
# openwrt/router.sh.
set -eu
. ./lib.sh
. ./openwrt/router.sh

build_router_of "$WRTFLOW_OPENWRT_IMAGE"
