#!/bin/sh
# programs.sh DIRECTORY: compiles the stand-in's own programs into a folder, static.
#   uci, jshn (and jshn.sh)    OpenWrt's own: the crate libuci-sys has their C sources
#   procd ujail ubus logd logread jsonfilter    the doubles of doubles/openwrt/src
set -eu
. ./lib.sh

target=$1
sum=$(cat openwrt/programs.sh ../doubles/openwrt/src/* | sha256sum)
[ "$(cat "$target/sum" 2>/dev/null)" != "$sum" ] || exit 0

missing=''
for tool in cargo gcc; do command -v "$tool" >/dev/null || missing="$missing $tool"; done
echo '#include <json-c/json.h>' | gcc -E - >/dev/null 2>&1 || missing="$missing libjson-c-dev"
[ -z "$missing" ] || die "the OpenWrt stand-in is compiled on this machine and needs:$missing (Debian's packages: cargo gcc libc6-dev libjson-c-dev)"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$target"

# Cargo fetches the crate and checks the registry's checksum. It compiles nothing.
cat >"$work/Cargo.toml" <<END
[package]
name = "sources"
version = "0.0.0"
edition = "2021"
[lib]
path = "/dev/null"
[dependencies]
libuci-sys = "=1.0.5"
END
(cd "$work" && retry cargo vendor --quiet vendor >/dev/null)
crate=$work/vendor/libuci-sys

compile() { # PROGRAM ARGUMENTS…
    program=$1
    shift
    # The linker warns that a static program can't use glibc's plugins for host names. The log is shown only if gcc fails.
    gcc -static -Os -std=gnu99 -o "$target/$program" "$@" 2>"$work/log" || { cat "$work/log" >&2; exit 1; }
}

: >"$crate/uci/uci_config.h"
ubox() { for name in "$@"; do echo "$crate/libubox/$name.c"; done; }
# shellcheck disable=SC2046 # file names without spaces
{
    compile uci -w -DUCI_PREFIX='""' -I"$crate/uci" -I"$crate" \
        "$crate"/uci/libuci.c "$crate"/uci/file.c "$crate"/uci/util.c "$crate"/uci/delta.c "$crate"/uci/parse.c \
        "$crate"/uci/blob.c "$crate"/uci/cli.c \
        $(ubox avl avl-cmp blob blobmsg utils ustream ustream-fd vlist uloop usock safe_list runqueue md5 kvlist ulog base64)
    compile jshn -w -DJSONC -I"$crate" -I/usr/include/json-c \
        $(ubox jshn blobmsg_json avl avl-cmp blob blobmsg utils vlist) -ljson-c
}
cp "$crate/libubox/sh/jshn.sh" "$target/"
for program in procd ujail ubus logd logread jsonfilter; do
    compile "$program" -Wall -Wextra ../doubles/openwrt/src/$program.c -ljson-c
done
echo "$sum" >"$target/sum"
