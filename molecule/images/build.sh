#!/bin/sh
# Builds the named images (folders of molecule/images/) where they are missing or their sources have changed.
#
#   molecule/images/build.sh [NAME...]     default: all
#
# Each NAME/build.sh makes one: a container image wrtflow-lab/NAME, or, for apt and geolite, a folder
# in $WRTFLOW_CACHE. It finds in its environment
#   IMAGE          the image's name             SUM    the digest of its sources, to be put on as label wrtflow.sum
#   WRTFLOW_CACHE  downloads and build results, kept between runs
#   WRTFLOW_LAB    vendor (the vendors' servers are reached) or registry (only package registries are)
# and may call molecule/images/lib.sh. An image whose build needs another one names it in NAME/needs.
set -eu

cd "$(dirname "$0")"
# The project's own Python environment, where one runs this by hand.
export PATH="$PWD/../../.venv/bin:$PATH"
. ./lib.sh

[ $# -gt 0 ] || set -- debian peer apt geolite openwrt-opkg openwrt-apk

for name in "$@"; do
    build_image "$name"
done
