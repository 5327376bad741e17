#!/bin/sh
# build-deb.sh OUTDIR: puts the package elasticsearch into OUTDIR. Called by apt/elastic.sh, from molecule/images.
#
# vendor     Elastic's own package, of the version that WRTFLOW_ELASTIC names
# registry   the real core from Maven Central (pom.xml, started by Core.java) with a small Java runtime, behind the double of X-Pack
#            (doubles/xpack), in the layout of Elastic's package (root, control)
set -eu
. ./lib.sh

version=9.2.0
architecture=$(dpkg --print-architecture)
out=$1
cache=$WRTFLOW_CACHE/elasticsearch
mkdir -p "$cache"

if [ "$WRTFLOW_LAB" = vendor ]; then
    version=${WRTFLOW_ELASTIC:-$version}
    file=elasticsearch-$version-$architecture.deb
    [ -e "$cache/$file" ] ||
        retry curl --fail --silent --show-error --location --output "$cache/$file.part" \
            "https://artifacts.elastic.co/downloads/elasticsearch/$file"
    [ ! -e "$cache/$file.part" ] || mv "$cache/$file.part" "$cache/$file"
    cp "$cache/$file" "$out/"
    exit
fi

# The jars, the class that starts them, and the Java runtime take time to make: they are kept until their sources change.
core=$cache/core-$(cat elasticsearch/pom.xml elasticsearch/Core.java elasticsearch/core.sh | sha256sum | cut -c1-16)
if [ ! -e "$core" ]; then
    work=$(mktemp -d "$cache/work.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    say "fetching the Elasticsearch core"
    retry mvn --quiet --batch-mode --file elasticsearch/pom.xml dependency:copy-dependencies "-DoutputDirectory=$work/lib" \
        "-DbuildDirectory=$work/target"
    mkdir -p "$work/modules/transport-netty4" "$work/lib/platform"
    mv "$work"/lib/*netty* "$work"/lib/*ssl-config* "$work/modules/transport-netty4/"
    # Elasticsearch asks this library for the processor's vector unit. The answer 0 means none: it uses Java code.
    echo 'int vec_caps(void) { return 0; }' | gcc -shared -fPIC -Os -x c - -o "$work/lib/platform/libvec.so"
    say "making its Java runtime"
    retry docker run --rm --volume "$PWD/elasticsearch:/src:ro" --volume "$work:/core" wrtflow-lab/debian sh /src/core.sh
    rm -rf "$cache"/core-*
    chmod 755 "$work"
    mv "$work" "$core"
fi

root=$(mktemp -d "$cache/root.XXXXXX")
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"
cp -r elasticsearch/root/. "$root/"
cp -r --link "$core/." "$root/usr/share/elasticsearch/"
# Elastic's package has the first of these folders, empty. Git can't keep an empty folder.
mkdir -p "$root/etc/elasticsearch/jvm.options.d" "$root/usr/share/elasticsearch/python/xpack"
cp ../doubles/xpack/*.py "$root/usr/share/elasticsearch/python/xpack/"
cp -r elasticsearch/control "$root/DEBIAN"
sed -i "s/@ARCHITECTURE@/$architecture/" "$root/DEBIAN/control"
# Not compressed: the package never leaves this machine.
dpkg-deb -Znone --root-owner-group --build "$root" "$out/elasticsearch_${version}_$architecture.deb" >/dev/null
