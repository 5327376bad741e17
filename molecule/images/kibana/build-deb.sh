#!/bin/sh
# build-deb.sh OUTDIR: puts Kibana's package into OUTDIR. Called by apt/elastic.sh, from molecule/images.
#
# vendor     Elastic's own package, of the version that WRTFLOW_ELASTIC names
# registry   a package in the same layout with the stand-in (doubles/kibana)
set -eu
. ./lib.sh

version=9.2.0

if [ "$WRTFLOW_LAB" = vendor ]; then
    version=${WRTFLOW_ELASTIC:-$version}
    package=kibana-$version-$(dpkg --print-architecture).deb
    retry curl --silent --show-error --fail --location --output "$1/$package" \
        "https://artifacts.elastic.co/downloads/kibana/$package"
    exit
fi

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
cp -r kibana/package/. "$root"
mkdir -p "$root/usr/share/kibana/src" "$root/var/lib/kibana" "$root/var/log/kibana"
cp ../doubles/kibana/*.py "$root/usr/share/kibana/src"
chmod 755 "$root" "$root/usr/share/kibana/bin/"* "$root/DEBIAN/p"*
printf 'Version: %s\nArchitecture: %s\n' "$version" "$(dpkg --print-architecture)" >>"$root/DEBIAN/control"
dpkg-deb --root-owner-group -Zgzip --build "$root" "$1" >&2
