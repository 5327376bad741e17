#!/bin/sh
# The lab's GeoLite2 databases (a folder, not an image): $WRTFLOW_CACHE/geolite/GeoLite2-{City,ASN}.mmdb.
set -eu
. ./lib.sh

mkdir -p "$WRTFLOW_CACHE/geolite"
rm -f "$WRTFLOW_CACHE/geolite/.sum"
python3 geolite/make.py "$WRTFLOW_CACHE/geolite"
echo "$SUM" >"$WRTFLOW_CACHE/geolite/.sum"
