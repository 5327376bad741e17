#!/bin/sh
# Builds the named images (folders of molecule/images) that are missing or whose sources have changed.
#
#   molecule/images/build.sh [NAME...]     default: all
#
# Each NAME/build.sh makes one image: a container image wrtflow-lab/NAME, or, for apt and geolite, a folder in $WRTFLOW_CACHE.
# Its environment has
#   IMAGE          the image's name             SUM    the digest of its sources, for the label wrtflow.sum
#   WRTFLOW_CACHE  downloads and build results, kept between runs
#   WRTFLOW_LAB    vendor (the vendors' servers are reached) or registry (only package registries are)
# It may use molecule/images/lib.sh. NAME/needs names the images that its build needs; NAME/uses, the folders besides its own
# that it is made from.
set -eu

cd "$(dirname "$0")"
# For those who run this by hand: the project's Python environment.
export PATH="$PWD/../../.venv/bin:$PATH"
. ./lib.sh

[ $# -gt 0 ] || set -- debian peer apt geolite openwrt-opkg openwrt-apk

for name in "$@"; do
    build_image "$name"
done
