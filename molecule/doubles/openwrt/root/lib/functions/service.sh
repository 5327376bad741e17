# service.sh: empty, as OpenWrt's helpers for services from before procd are used by nothing in this image.
# shellcheck shell=busybox
